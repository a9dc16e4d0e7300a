"""Who tells the end of an execution when the work-horse cannot: once, with the same span ID, whoever is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
import redis
import rq

import chegou_otel
from chegou_otel.delivery import process
from chegou_otel.integrations.rq.claims import KEY, Claims
from chegou_otel.integrations.rq.executions import Executions, span_id_of
from chegou_otel.integrations.rq.listener import Listener
from tests.delivery.receiver import wait_for
from tests.integrations.rq.conftest import attributes
from tests.redis_server import free_port

pytestmark = pytest.mark.slow

#: The parent's courier reads what its work-horse wrote about once a second.
READ = 2.5


@pytest.fixture
def producer(telemetry):
    """Telemetry in this process, so that jobs have an originator."""
    return telemetry


class Scene:
    """A worker with one long job, and what can happen to both."""

    def __init__(self, hub, folder):
        self.hub = hub
        self.path = folder / "running"
        self.worker = self.job = None
        self.horse = 0

    def begin(self, worker="Worker", job="waits"):
        with chegou_otel.use_correlation_id("order-0007"):
            self.job = self.hub.queue().enqueue(f"truth_jobs.{job}", str(self.path), job_timeout=120)
        self.worker = self.hub.start("truth_work.py", worker)
        wait_for(lambda: self.path.exists() and self.path.read_text(), 30, f"the job\n{self.hub.said()}")
        self.horse = int(self.path.read_text())
        return self

    @property
    def execution_id(self):
        (entry,) = self.hub.redis.zrange("rq:wip:default", 0, -1)
        return entry.decode().rpartition(":")[2]

    def kill_worker(self, after=0.0):
        time.sleep(after)
        self.worker.kill()
        self.worker.wait()

    def kill_horse(self):
        os.kill(self.horse, signal.SIGKILL)
        self.gone()

    def gone(self):
        wait_for(lambda: not psutil.pid_exists(self.horse) or psutil.Process(self.horse).status() == "zombie", 20, "the work-horse's end")

    def finish(self):
        self.path.with_name(f"{self.path.name}.go").touch()
        self.gone()

    def next(self, **env):
        self.hub.work("truth_work.py", "next", **env)

    def clean(self, service="elsewhere"):
        """What another host sees: another service has another folder."""
        self.hub.work("truth_work.py", "clean", TRUTH_SERVICE=service)


@pytest.fixture
def scene(hub, tmp_path):
    return Scene(hub, tmp_path)


def told(hub, status):
    """The one consumer span; nothing more comes."""
    (span,) = hub.wait_jobs(1)
    assert attributes(span)["rq.job.status"] == status, attributes(span)
    assert len(hub.jobs) == 1
    return span


def test_a_long_job_is_told_though_its_parent_had_read_its_beginning_before_both_died(scene, hub, producer):
    scene.begin().kill_worker(after=READ)
    scene.kill_horse()
    scene.next()

    span = told(hub, "vanished")
    assert (attributes(span)["truth.before"], attributes(span)["correlation_id"]) == ("the end", "order-0007")
    assert [event.name for event in span.events] == ["last words"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (
        producer.span("send default").trace_id,
        producer.span("send default").span_id,
    )
    assert sum(hub.metric("rq.job.executions").values()) == 1
    assert span.end_time_unix_nano == span.events[0].time_unix_nano, "the last that was heard of it"
    assert hub.metric("messaging.process.duration") == {}, "nobody knows how long it took"


def test_whoever_holds_an_open_execution_may_die_too(scene, hub, producer):
    scene.begin().kill_worker(after=READ)
    for _ in range(2):  # each of them takes over from the one before
        log = hub.said().count("adopted")
        holder = hub.start("truth_work.py", "adopt")
        wait_for(lambda log=log: hub.said().count("adopted") > log, 30, f"the adoption\n{hub.said()}")
        holder.kill()
        holder.wait()
    scene.kill_horse()
    scene.next()
    scene.next()

    assert attributes(told(hub, "vanished"))["truth.before"] == "the end"


def test_an_orphan_that_finishes_tells_its_own_end_whoever_held_it(scene, hub, producer):
    scene.begin().kill_worker(after=READ)
    holder = hub.start("truth_work.py", "adopt")
    wait_for(lambda: "adopted" in hub.said(), 30, "the adoption")
    holder.kill()
    holder.wait()
    scene.finish()
    scene.next()

    told(hub, "finished")


def test_what_a_parent_watches_its_forked_child_does_not_tell(scene, hub, producer, tmp_path):
    """gunicorn's master with ``--preload`` may be the one that adopts; the workers that it forks know nothing of how that goes on."""
    scene.begin().kill_worker(after=READ)
    go = tmp_path / "serve"
    hub.start("truth_work.py", "preload", str(go))
    wait_for(lambda: "adopted" in hub.said(), 30, f"the adoption\n{hub.said()}")
    scene.finish()
    told(hub, "finished")
    go.touch()
    wait_for(lambda: "served" in hub.said(), 30, f"the child\n{hub.said()}")

    told(hub, "finished")
    assert hub.metric("rq.job.executions") == {} or set(hub.metric("rq.job.executions").values()) == {1}


def test_an_outcome_in_another_segment_with_another_adopter_is_known(scene, hub, producer, tmp_path):
    """The beginning lies in the first segment, the end in the second, and each is found by a process that does not see the other."""
    scene.begin(job="tells_much").kill_worker()
    scene.finish()
    hub.redis.flushall()  # nor is there a claim that would tell
    segments = sorted((tmp_path / "spool" / "hub").glob("*.seg"))
    first = next(path for path in segments if b'["began","' in path.read_bytes())
    elsewhere = tmp_path / "other" / "hub"
    elsewhere.mkdir(parents=True, mode=0o700)
    moved = [path for path in segments if path != first]
    assert moved, "the job was to record more than a segment takes"
    for path in moved:
        shutil.move(path, elsewhere / path.name)
    scene.next()
    assert hub.jobs == []
    scene.next(HUB_SPOOL=str(tmp_path / "other"))

    told(hub, "finished")


def test_a_simple_worker_that_is_killed_is_told_by_the_next_process(scene, hub, producer):
    scene.begin("SimpleWorker").kill_worker(after=READ)
    scene.next()

    span = told(hub, "vanished")
    assert (attributes(span)["truth.before"], [event.name for event in span.events]) == ("the end", ["last words"])


@pytest.mark.parametrize("shutdown", [signal.SIGTERM, signal.SIGINT])
def test_a_cold_shutdown_is_told_as_the_kill_that_it_is(scene, hub, producer, shutdown):
    scene.begin()
    scene.worker.send_signal(shutdown)
    time.sleep(1.3)  # RQ takes two within a second for one
    scene.worker.send_signal(shutdown)
    scene.worker.wait(30)

    assert attributes(told(hub, "killed"))["rq.job.exit_signal"] == 9


# -- the registry's cleaner, and claims


def test_what_another_host_finds_abandoned_it_tells_and_the_adopter_does_not_again(scene, hub, producer):
    scene.begin()
    execution_id = scene.execution_id
    scene.kill_worker()
    scene.kill_horse()
    scene.clean()

    span = told(hub, "abandoned")
    sent = producer.span("send default")
    assert (span.span_id, span.trace_id.hex(), span.parent_span_id.hex()) == (span_id_of(execution_id), sent.trace_id, sent.span_id)
    assert attributes(span)["rq.job.function"] == "truth_jobs.waits"
    assert (attributes(span)["correlation_id"], attributes(span)["messaging.message.id"]) == ("order-0007", scene.job.id)
    assert hub.redis.ttl(KEY.format(execution_id)) > 0
    scene.next()
    told(hub, "abandoned")


def test_what_an_adopter_told_no_cleaner_tells_again(scene, hub, producer):
    scene.begin().kill_worker()
    scene.kill_horse()
    scene.next()
    told(hub, "vanished")
    scene.clean()

    told(hub, "vanished")


def test_who_claimed_and_died_before_telling_is_followed_by_the_next(scene, hub, producer):
    """The claim is in Redis, the frames were not written yet; no words were let go."""
    scene.begin().kill_worker()
    scene.kill_horse()
    gone = subprocess.run(["/bin/sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    hub.redis.set(KEY.format(scene.execution_id), f"vanished;1;{os.uname().nodename};{gone};1;words")
    scene.next()

    told(hub, "vanished")


@pytest.mark.parametrize(
    "claim", ["vanished;1;{host};{pid};{started};words", "abandoned;1;elsewhere;1;1;words", "abandoned;1;{host};1;1;", "?"]
)
def test_a_claim_of_a_living_process_or_of_one_that_had_no_words_stands(scene, hub, producer, claim):
    scene.begin().kill_worker()
    scene.kill_horse()
    known = {"host": os.uname().nodename, "pid": os.getpid(), "started": process.moment()}
    hub.redis.set(KEY.format(scene.execution_id), claim.format(**known))
    scene.next()

    assert hub.jobs == []


def test_a_cleaner_on_the_same_host_leaves_it_to_the_live_orphan(scene, hub, producer):
    scene.begin().kill_worker()
    scene.clean(service="hub")
    assert hub.jobs == []
    scene.finish()
    scene.next()

    told(hub, "finished")


def test_a_live_orphan_that_another_host_gave_up_is_not_told_twice(scene, hub, producer):
    scene.begin().kill_worker()
    scene.clean()
    told(hub, "abandoned")
    scene.finish()
    scene.next()

    told(hub, "abandoned")


def test_the_retry_beside_a_live_orphan_is_an_execution_of_its_own(scene, hub, producer):
    with chegou_otel.use_correlation_id("order-0008"):
        scene.job = hub.queue().enqueue("truth_jobs.waits", str(scene.path), job_timeout=120, retry=rq.Retry(max=1))
    scene.worker = hub.start("truth_work.py", "Worker")
    wait_for(lambda: scene.path.exists() and scene.path.read_text(), 30, "the job")
    scene.horse = int(scene.path.read_text())
    scene.kill_worker()
    scene.clean(service="hub")
    beside = hub.start("truth_work.py", "Worker", "burst")
    wait_for(lambda: scene.path.read_text() not in ("", str(scene.horse)), 30, f"the retry\n{hub.said()}")
    scene.finish()
    assert beside.wait(30) == 0
    scene.next()

    first, second = hub.wait_jobs(2)
    assert [attributes(span)["rq.job.status"] for span in (first, second)] == ["finished", "finished"]
    assert [attributes(span)["rq.job.attempt"] for span in (first, second)] == [1, 2]
    assert first.span_id != second.span_id
    assert len(hub.jobs) == 2


def test_a_claim_is_given_once_and_only_an_answer_refuses_it(redis_client):
    first, second = Claims(), Claims()
    assert first.take("execution-1", "killed", redis_client)
    assert not second.take("execution-1", "vanished", redis_client)
    assert second.take("execution-2", "vanished", redis_client)
    assert Claims().take("execution-1", "vanished"), "no Redis is known"
    assert Claims().take("execution-1", "vanished", redis.Redis(port=free_port())), "nobody listens"


def test_a_redis_that_hangs_holds_nobody_up_and_loses_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        assert Claims().take("execution-1", "killed", redis.Redis(port=server.getsockname()[1]))
        assert time.monotonic() - started < 3


def test_a_redis_that_hangs_holds_the_courier_up_once_and_not_for_each_that_it_has_to_tell(telemetry):
    runtime = chegou_otel.setup().runtime
    executions = Executions(runtime)
    listener = Listener(runtime, executions)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for number in range(5):
        ids = [f"{number + 1:032x}", f"{number + 1:016x}", ""]
        what = ["default", "truth_jobs.ok", *ids, 1, "order-0010", {}, [], gone.pid, 0, time.time_ns(), [0.0, 0, 0]]
        listener.change(json.dumps(["began", f"execution-{number}", *what]).encode())
    with socket.create_server(("127.0.0.1", 0)) as server:
        executions.claims.know(redis.Redis(port=server.getsockname()[1]))
        started = time.monotonic()
        for _ in range(3):
            listener.sweep()
        assert time.monotonic() - started < 4
    assert [span.attributes["rq.job.status"] for span in telemetry.jobs] == ["vanished"]


# -- setup() that first runs in the work-horse


def late(hub):
    hub.work("-m", "rq.cli", "worker", "--url", f"redis://127.0.0.1:{hub.redis_port}", "--burst", HUB_SETTINGS_FROM_JOBS="1")


@pytest.mark.parametrize(
    ("job", "status", "fact"),
    [
        ("kill", "killed", ("rq.job.exit_signal", 9)),
        ("leave", "vanished", ("rq.job.exit_code", 0)),
        ("leave_by_3", "vanished", ("rq.job.exit_code", 3)),
    ],
)
def test_a_late_work_horse_that_dies_is_told_by_the_next_one_with_what_rq_knows(hub, producer, job, status, fact):
    hub.queue().enqueue(f"hub_jobs.{job}")
    hub.queue().enqueue("hub_jobs.ok", "after it")
    late(hub)
    if len(hub.jobs) < 2:
        hub.work("truth_work.py", "next")
    first, second = hub.wait_jobs(2)

    assert (attributes(first)["rq.job.status"], attributes(first).get(fact[0])) == (status, fact[1])
    assert attributes(second)["rq.job.status"] == "finished"
    assert len(hub.jobs) == 2
    if job == "kill":
        assert (attributes(first)["hub.before"], [event.name for event in first.events]) == ("the kill", ["last words"])
        assert "about to die" in [body for _, body, _ in hub.logs]


# -- a queue that does not wait for workers


def test_a_synchronous_queue_s_run_is_one_consumer_under_its_producer(redis_client, producer):
    queue = rq.Queue(connection=redis_client, is_async=False)
    with chegou_otel.use_correlation_id("order-0009"):
        queue.enqueue("truth_jobs.ok")
        queue.enqueue("truth_jobs.fails")

    assert producer.span_names() == ["send default", "process default", "send default", "process default"]
    sent, ran, _, failed = producer.spans
    assert (ran.trace_id, ran.parent_id, ran.correlation_id) == (sent.trace_id, sent.span_id, "order-0009")
    assert [span.attributes["rq.job.status"] for span in (ran, failed)] == ["finished", "failed"]
    assert failed.attributes["error.type"] == "ValueError"


def test_synchronous_queues_of_several_threads_fail_each_for_itself(redis_client, producer):
    """A web server's threads, while jobs are not given to workers: in tests, and where there are few."""
    import truth_jobs

    queue = rq.Queue(connection=redis_client, is_async=False)
    first = threading.Thread(target=queue.enqueue, args=("truth_jobs.fails_beside",))
    second = threading.Thread(target=queue.enqueue, args=("truth_jobs.goes_on_beside",))
    first.start()
    assert truth_jobs.beside["fails"].wait(30)
    second.start()
    first.join(30)
    truth_jobs.beside["failed"].set()
    second.join(30)

    told = {span.attributes["rq.job.function"]: span for span in producer.jobs}
    failed, finished = told["truth_jobs.fails_beside"], told["truth_jobs.goes_on_beside"]
    assert (failed.attributes["rq.job.status"], failed.attributes.get("error.type")) == ("failed", "ValueError")
    assert (finished.attributes["rq.job.status"], finished.status, finished.attributes.get("error.type")) == ("finished", "UNSET", None)
