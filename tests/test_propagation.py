"""Who may receive what, and whose word is believed."""

import os
import subprocess
import sys

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from chegou_otel.correlation import use_correlation_id
from chegou_otel.propagation import Propagation, hosts, w3c

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def context_with(flags=1, state=None, **entries):
    span = NonRecordingSpan(SpanContext(int(TRACE, 16), int(SPAN, 16), False, TraceFlags(flags), TraceState(state or [])))
    context = trace.set_span_in_context(span, Context())
    for key, value in entries.items():
        context = baggage.set_baggage(key, value, context)
    return context


@pytest.fixture
def current():
    """Make a context the current one until the test ends."""
    tokens = []
    yield lambda context: tokens.append(attach(context))
    for token in reversed(tokens):
        detach(token)


def span_of(context):
    return trace.get_current_span(context).get_span_context()


def reader(headers):
    return headers.get


class TestHosts:
    """Which hosts receive headers."""

    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST.", "app.localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1"]
    )
    def test_loopback_always(self, host):
        assert Propagation().allows(host)

    @pytest.mark.parametrize(
        "host",
        ["example.com", "10.0.0.1", "0.0.0.0", "127.1", "2130706433", "0x7f.0.0.1", "localhost.evil.com", "127.0.0.1.evil.com", "notlocalhost",
         "", ".", "a b", "localhost/", "user@localhost", "localhost\r\nX: y", "ｌocalhost", "localhost\u3002"],
    )  # fmt: skip
    def test_nobody_else_by_default(self, host):
        assert not Propagation().allows(host)

    @pytest.mark.parametrize(
        ("pattern", "host"),
        [
            ("api.example.com", "API.Example.COM"),
            ("api.example.com", "api.example.com."),
            ("API.example.com.", "api.example.com"),
            ("*.example.com", "a.example.com"),
            ("*.example.com", "a.b.example.com"),
            (".internal", "db.internal"),
            (".internal", "internal"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "bücher.example"),
            ("2001:db8::1", "[2001:DB8:0::1]"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("10.0.0.0/8", "10.200.3.4"),
            ("10.0.0.0/8", "::ffff:10.2.3.4"),
            ("*", "anything.example"),
            (" api.example.com ", "api.example.com"),
            ("under_score.example", "under_score.example"),
        ],
    )
    def test_named(self, pattern, host):
        assert Propagation([pattern]).allows(host)
        assert Propagation([pattern]).allows(host, 443)

    @pytest.mark.parametrize(
        ("pattern", "host"),
        [
            ("api.example.com", "example.com"),
            ("api.example.com", "x.api.example.com"),
            ("api.example.com", "api.example.com.evil.com"),
            ("api.example.com", "evilapi.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "evilexample.com"),
            (".internal", "notinternal"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/8", "10.0.0.1.evil.com"),
            # IDNA 2003 maps it to strasse.example, IDNA 2008 does not: clients disagree about which host that is.
            ("strasse.example", "straße.example"),
            ("*", "not a host"),
        ],
    )
    def test_not_named(self, pattern, host):
        assert not Propagation([pattern]).allows(host)

    def test_port(self):
        propagation = Propagation(["api.example.com:8443", "[2001:db8::1]:80"])

        assert propagation.allows("api.example.com", 8443)
        assert not propagation.allows("api.example.com", 443)
        assert not propagation.allows("api.example.com")
        assert propagation.allows("2001:db8::1", 80)

    @pytest.mark.parametrize(
        "entry", ["https://api.example.com", "", "*.", "a b", "ex*mple.com", "*example.com", "straße.de", "10.0.0.0/99"]
    )
    def test_bad_entry_denies_and_is_reported(self, entry, caplog):
        propagation = Propagation([entry, "good.example"])

        assert propagation.allows("good.example")
        assert "propagate_to" in caplog.text
        with pytest.raises(ValueError):
            hosts.host_pattern(entry)

    def test_many_hosts_do_not_pile_up(self):
        propagation = Propagation(["api.example.com"])
        for number in range(3_000):
            assert not propagation.allows(f"h{number}.example")

        assert propagation.allows("api.example.com")
        assert len(propagation._allowed) <= 1_000


class TestTrust:
    """Whose word is believed."""

    @pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::5", "192.168.1.7"])
    def test_trusted(self, peer):
        assert Propagation(trust_from=["10.0.0.0/8", "2001:db8::/32", "192.168.1.7"]).trusts(peer)

    @pytest.mark.parametrize("peer", ["11.1.2.3", "192.168.1.8", "2001:db9::5", "", None, "10.0.0.1, 1.2.3.4", "nonsense", "unix:"])
    def test_not_trusted(self, peer):
        assert not Propagation(trust_from=["10.0.0.0/8", "2001:db8::/32", "192.168.1.7"]).trusts(peer)

    def test_nobody_by_default(self):
        assert not Propagation().trusts("127.0.0.1")
        assert not Propagation().trusts("")

    def test_unix_socket(self):
        assert Propagation(trust_from=["unix"]).trusts("")
        assert Propagation(trust_from=["unix"]).trusts(None)
        assert not Propagation(trust_from=["unix"]).trusts("10.0.0.1")

    def test_bad_entry_denies_and_is_reported(self, caplog):
        assert not Propagation(trust_from=["proxy.internal"]).trusts("10.0.0.1")
        assert "trust_from" in caplog.text


class TestOutbound:
    """What an allowed host receives."""

    def test_everything_of_the_context(self, current):
        current(context_with(flags=3, state=[("vendor", "a:b")], tenant="açaí, 1+1;=", plain="x"))
        with use_correlation_id("pedido-0000001"):
            headers = dict(Propagation().headers_for("localhost", 80))

        assert headers["traceparent"] == f"00-{TRACE}-{SPAN}-03"
        assert headers["tracestate"] == "vendor=a:b"
        assert headers["X-Correlation-ID"] == "pedido-0000001"
        assert dict(w3c.read_baggage(headers["baggage"])) == {"tenant": "açaí, 1+1;=", "plain": "x"}
        # OpenTelemetry's own reader agrees.
        seen = baggage.get_all(propagate.extract(headers, Context()))
        assert dict(seen) == {"tenant": "açaí, 1+1;=", "plain": "x"}

    def test_nothing_for_others(self, current):
        current(context_with(secret="x"))
        with use_correlation_id():
            assert Propagation().headers_for("api.example.com", 443) == []
            assert Propagation().outbound(trace.get_current_span(), "api.example.com") == []

    def test_nothing_to_say(self):
        assert Propagation().headers_for("localhost") == []

    def test_a_given_span(self, current):
        current(context_with())
        span = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(0)))

        assert Propagation().outbound(span, "localhost") == [("traceparent", f"00-{1:032x}-{2:016x}-00")]

    def test_unknown_flags_are_not_passed_on(self, current):
        current(context_with(flags=0xFF))
        assert dict(Propagation().headers_for("localhost"))["traceparent"].endswith("-03")

    def test_limits(self, current):
        state = [(f"v{n}", "x" * 200) for n in range(5)]
        current(context_with(state=state, **{f"key{n}": "y" * 500 for n in range(100)}))
        headers = dict(Propagation().headers_for("localhost"))

        assert "tracestate" not in headers
        assert 0 < len(headers["baggage"]) <= 8_192
        assert all(len(entry.partition("=")[2]) == 500 for entry in headers["baggage"].split(","))


class TestInbound:
    """What is believed of what came in."""

    def extract(self, headers, trusted=True):
        return Propagation().extract(reader(headers), trusted=trusted, context=Context())

    def test_trusted_is_the_parent(self):
        found = self.extract({"traceparent": PARENT, "tracestate": "vendor=1", "baggage": "a=1,b=%C3%A7;meta=1"})

        parent = span_of(found.context)
        assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.is_remote) == (TRACE, SPAN, True)
        assert parent.trace_state.get("vendor") == "1"
        assert dict(baggage.get_all(found.context)) == {"a": "1", "b": "ç"}
        assert found.links == ()

    def test_untrusted_is_a_link(self):
        found = self.extract({"traceparent": PARENT, "tracestate": "vendor=1", "baggage": "user.id=admin"}, trusted=False)

        assert not span_of(found.context).is_valid
        assert dict(baggage.get_all(found.context)) == {}
        assert [f"{link.context.trace_id:032x}" for link in found.links] == [TRACE]

    @pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
    def test_flags(self, flags):
        assert span_of(self.extract({"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}).context).trace_flags == int(flags, 16)

    def test_unknown_flags_are_ignored(self):
        assert span_of(self.extract({"traceparent": f"00-{TRACE}-{SPAN}-ff"}).context).trace_flags == 3

    def test_later_version(self):
        assert span_of(self.extract({"traceparent": f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"}).context).is_valid

    @pytest.mark.parametrize(
        "header",
        [
            "", "00", PARENT + "-", PARENT + "-more", PARENT.upper(), f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{TRACE}-{SPAN}-1", f"0-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-0g", f"{PARENT},{PARENT}",
            f"cc-{TRACE}-{SPAN}-01." , f"cc-{TRACE}-{SPAN}-01-" + "x" * 600, PARENT.replace("0", "٠"),
        ],
    )  # fmt: skip
    def test_malformed(self, header):
        for trusted in (True, False):
            found = self.extract({"traceparent": header}, trusted)
            assert not span_of(found.context).is_valid
            assert found.links == ()

    def test_tracestate_limit(self):
        found = self.extract({"traceparent": PARENT, "tracestate": "v=" + "x" * 600})
        assert span_of(found.context).is_valid
        assert not span_of(found.context).trace_state

    @pytest.mark.parametrize("header", ["x" * 9_000, "a=" + "x" * 8_200, "no-value", "=x", "sp ace=1", ";"])
    def test_baggage_that_is_not_taken(self, header):
        assert dict(baggage.get_all(self.extract({"baggage": header}).context)) == {}

    def test_baggage_entries_are_counted(self):
        found = self.extract({"baggage": ",".join(f"k{n}=1" for n in range(100))})
        assert len(baggage.get_all(found.context)) == 64

    def test_a_failing_reader_is_not_fatal(self, monkeypatch):
        monkeypatch.setattr("chegou_otel._guard.strict", False)

        def broken(name):
            raise RuntimeError(name)

        assert Propagation().extract(broken, trusted=True, context=Context()) == (Context(), ())


class _OneHeader(TextMapPropagator):
    """Another format: everything in one header."""

    def extract(self, carrier, context=None, getter=None):
        found = getter.get(carrier, "x-trace")
        if not found:
            return context
        trace_id, span_id = found[0].split(":")
        return trace.set_span_in_context(NonRecordingSpan(SpanContext(int(trace_id), int(span_id), True)), context)

    def inject(self, carrier, context=None, setter=None):
        told = trace.get_current_span(context).get_span_context()
        carrier["x-trace"] = f"{told.trace_id}:{told.span_id}"

    @property
    def fields(self):
        return {"x-trace"}


class TestChosenFormat:
    """The global propagator, when somebody set another one."""

    @pytest.fixture(autouse=True)
    def other(self):
        before = propagate.get_global_textmap()
        propagate.set_global_textmap(CompositePropagator([_OneHeader()]))
        yield
        propagate.set_global_textmap(before)

    def test_outbound(self, current):
        current(context_with())
        with use_correlation_id("pedido-0000001"):
            assert Propagation().headers_for("localhost") == [
                ("x-trace", f"{int(TRACE, 16)}:{int(SPAN, 16)}"),
                ("X-Correlation-ID", "pedido-0000001"),
            ]
            assert Propagation().headers_for("example.com") == []

    def test_inbound(self):
        headers = {"x-trace": "7:8", "traceparent": PARENT}

        trusted = Propagation().extract(reader(headers), trusted=True, context=Context())
        assert span_of(trusted.context).trace_id == 7
        untrusted = Propagation().extract(reader(headers), trusted=False, context=Context())
        assert not span_of(untrusted.context).is_valid
        assert [link.context.trace_id for link in untrusted.links] == [7]

    def test_noticed_when_it_changes(self, current):
        current(context_with())
        propagation = Propagation()
        assert not propagation.plain

        propagate.set_global_textmap(CompositePropagator([]))
        assert propagation.headers_for("localhost") == []


def test_a_wrong_variable_falls_back():
    """OTEL_PROPAGATORS with an unknown name: OpenTelemetry raises when imported, we warn and use W3C's formats."""
    code = (
        "from chegou_otel.propagation import Propagation\n"
        "from chegou_otel.correlation import use_correlation_id\n"
        "propagation = Propagation()\n"
        "assert propagation.plain\n"
        "with use_correlation_id('pedido-0000001'):\n"
        "    print(propagation.headers_for('localhost'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "OTEL_PROPAGATORS": "nonsense"}, capture_output=True, text=True
    )

    assert done.stdout == "[('X-Correlation-ID', 'pedido-0000001')]\n"
    assert "OTEL_PROPAGATORS cannot be used" in done.stderr
