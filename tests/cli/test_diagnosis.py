"""The tables behind `chegou-otel doctor`: what a failure means, and how long a folder lasts."""

from __future__ import annotations

import pytest

from chegou_otel.cli.diagnosis import places
from chegou_otel.cli.diagnosis.findings import DELIVERY, findings

MOUNTS = """\
22 1 0:20 / / rw,relatime - overlay overlay rw
25 22 0:5 / /proc rw - proc proc rw
26 22 0:22 / /dev/shm rw - tmpfs tmpfs rw
30 22 8:1 /data /var/lib/spool rw - ext4 /dev/sda1 rw
31 22 8:2 / /mnt/with\\040space rw shared:5 - xfs /dev/sdb rw
"""


def contact(failure):
    return {
        "backend": {"where": "", "seen": {}},
        "contacts": {
            "traces": {"endpoint": "http://there:4318/v1/traces", "delivered": False, "failing": True, "failure": failure, "skew": None}
        },
    }


@pytest.mark.parametrize(
    ("failure", "what", "fix"),
    [
        ("[Errno 111] Connection refused", "nothing listens on http://there:4318", "chegou-otel dev"),
        ("HTTP 403 Forbidden", "does not let us in", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("HTTP 405 Method Not Allowed", "no OTLP address", "without /v1/traces"),
        ("HTTP 301 Moved Permanently (redirects are not followed)", "redirects", "the address that it leads to"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1032)", "speaks no TLS", "http://"),
        ("[SSL] record layer failure (_ssl.c:1032)", "speaks no TLS", "http://"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, not valid for 'x'", "another name", "holds"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", "not trusted", "OTLP_CERTIFICATE"),
        ("[Errno -2] Name or service not known", "no host", "correct the name"),
        ("looking up there takes too long", "no host", "correct the name"),
        ("TimeoutError: timed out", "does not answer in time", "firewall"),
        ("HTTP 429 Too Many Requests", "cannot take it now", "overloaded"),
        ("HTTP 500 Internal Server Error", "cannot take it now", "log"),
        ("HTTP 400 Bad Request", "refuses what is sent", "log"),
        ("something new", "(something new)", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_what_a_failed_delivery_means(failure, what, fix):
    (found,) = findings(contact(failure))
    assert what in found.what
    assert fix in found.fix
    assert found.problem


def test_the_last_row_takes_whatever_is_left():
    assert DELIVERY[-1][0] == ""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/home/app/.local/state", "/", "overlay"),
        ("/var/lib/spool/shop", "/var/lib/spool", "ext4"),
        ("/var/lib/spoolage", "/", "overlay"),
        ("/mnt/with space/x", "/mnt/with space", "xfs"),
        ("/dev/shm", "/dev/shm", "tmpfs"),
    ],
)
def test_where_a_folder_is_mounted(path, point, kind):
    assert places.mount_of(path, MOUNTS) == (point, kind)


@pytest.mark.parametrize(
    ("mount", "container", "words", "enough"),
    [
        (("/", "overlay"), True, "ends with this container", False),
        (("/", "ext4"), True, "ends with this container", False),
        (("/data", "ext4"), True, "mounted at /data: outlives this container", True),
        (("/", "ext4"), False, "stays", True),
        (("/tmp", "tmpfs"), False, "gone with the next start", False),
    ],
)
def test_how_long_it_lasts(mount, container, words, enough):
    told, lasts = places.judge(places.Mount(*mount), container=container)
    assert words in told
    assert lasts is enough


def test_a_container_is_known_by_its_marks(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert not places.in_container(str(tmp_path))
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("0::/kubepods/besteffort/pod1\n")
    assert places.in_container(str(tmp_path))
