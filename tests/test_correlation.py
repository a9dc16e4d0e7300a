"""The correlation ID: what is accepted, where it goes, where it does not stay."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chegou_otel
from chegou_otel import correlation

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_new_ids_are_uuid7_and_carry_their_time():
    before = time.time_ns() // 1_000_000
    made = correlation.new_id()
    after = time.time_ns() // 1_000_000

    assert UUID7.fullmatch(made)
    assert before <= int(made.replace("-", "")[:12], 16) <= after


def test_new_ids_do_not_repeat_after_a_user_s_seed():
    import random

    random.seed(1)
    first = correlation.new_id()
    random.seed(1)

    assert correlation.new_id()[-12:] != first[-12:]


def test_a_forked_child_makes_other_ids():
    reader, writer = os.pipe()
    state = correlation.rng.getstate()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"same" if correlation.rng.getstate() == state else b"different")
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reader, 100) == b"different"


@pytest.mark.parametrize("header", ["0198f2b0-7e1c-7a3b-8c4d-5e6f70819203", "order-12345678", "A1234567", "x" * 128])
def test_a_well_formed_header_is_accepted_and_marked_as_the_client_s(header):
    found = correlation.accept(header)

    assert (found.id, found.source) == (header, "client")


@pytest.mark.parametrize(
    "header",
    [None, "", "short", "x" * 129, "with space", "a\r\nSet-Cookie: x", "-leading-dash", "ümläutümläut", "a" * 8 + "\n", "<script>"],
)
def test_anything_else_is_replaced(header):
    found = correlation.accept(header)

    assert UUID7.fullmatch(found.id)
    assert found.source == "generated"


@given(st.text())
def test_no_header_gets_anything_but_plain_characters_through(header):
    assert re.fullmatch(r"[A-Za-z0-9._-]+", correlation.accept(header).id)


def test_use_correlation_id_nests_and_puts_the_former_back():
    assert chegou_otel.get_correlation_id() is None
    with chegou_otel.use_correlation_id("outer-id-1") as outer:
        with chegou_otel.use_correlation_id() as inner:
            assert chegou_otel.get_correlation_id() == inner
        assert chegou_otel.get_correlation_id() == outer == "outer-id-1"
    assert chegou_otel.get_correlation_id() is None


def test_a_malformed_id_of_the_application_s_is_an_error_that_says_the_rule():
    with pytest.raises(ValueError, match="8 to 128 letters"), chegou_otel.use_correlation_id("no spaces please"):
        pass


def test_it_is_put_back_when_the_block_fails():
    with pytest.raises(KeyError), chegou_otel.use_correlation_id():
        raise KeyError
    assert chegou_otel.get_correlation_id() is None


def test_threads_and_executors_carry_it_and_keep_nothing(telemetry):
    seen = []
    with ThreadPoolExecutor(1) as pool:
        with chegou_otel.use_correlation_id("thread-id-1"):
            thread = threading.Thread(target=lambda: seen.append(chegou_otel.get_correlation_id()))
            thread.start()
            thread.join()
            seen.append(pool.submit(chegou_otel.get_correlation_id).result())
        seen.append(pool.submit(chegou_otel.get_correlation_id).result())

    assert seen == ["thread-id-1", "thread-id-1", None]


def test_a_thread_subclass_with_its_own_run_carries_it(telemetry):
    class Mine(threading.Thread):
        def run(self):
            self.seen = chegou_otel.get_correlation_id()

    with chegou_otel.use_correlation_id("thread-id-2"):
        thread = Mine()
        thread.start()
        thread.join()

    assert thread.seen == "thread-id-2"


async def test_tasks_carry_their_own():
    async def one(given_id):
        with chegou_otel.use_correlation_id(given_id):
            await asyncio.sleep(0)
            return chegou_otel.get_correlation_id()

    assert await asyncio.gather(one("task-id-1"), one("task-id-2")) == ["task-id-1", "task-id-2"]
