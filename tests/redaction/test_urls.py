"""URLs and query strings, in whatever state they are."""

from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chegou_otel.redaction import Redactor
from chegou_otel.redaction.urls import hide_in_url
from tests.redaction import strategies as near

redactor = Redactor()
R = "REDACTED"

CASES = {
    "https://user:pw@h/x?token=1&a=2#access_token=3": f"https://{R}@h/x?token={R}&a=2#access_token={R}",
    "https://ghtoken@github.com/a": f"https://{R}@github.com/a",
    "//u:p@h/x": f"//{R}@h/x",
    "u:p@h/x?a=1": f"{R}@h/x?a=1",
    "http://h/x?next=%2Fy%3Ftoken%3Dabc&b=1": f"http://h/x?next={R}&b=1",
    "http://h/x?next=%252Fy%253Ftoken%253Dabc": f"http://h/x?next={R}",
    "redis://:p/w#d?x@h:6379/0": f"redis://{R}@h:6379/0",
    "http://u:p@[::1]:80/x": f"http://{R}@[::1]:80/x",
    "/reset/52998224725/?cpf=1": f"/reset/[redacted]/?cpf={R}",
    "/clientes/529%2E982%2E247-25/x": f"/clientes/{R}/x",
    "/x;jsessionid=abc?a=1": "/x;jsessionid=[redacted]?a=1",
    "/x?cliente=529.982.247-25&a": f"/x?cliente={R}&a",
    "/x?cliente=529%2E982%2E247-25": f"/x?cliente={R}",
    "/x?p%61ssword=abc": f"/x?p%61ssword={R}",
    "/x?user%5Bpassword%5D=abc": f"/x?user%5Bpassword%5D={R}",
    "/x?52998224725=1": f"/x?{R}=1",
    "/x?52998224725": f"/x?{R}",
    "/cb?code=abc&state=def": f"/cb?code={R}&state=def",
    "/cb?code=abc": "/cb?code=abc",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=AK%2F1&X-Amz-Date=1&X-Amz-Signature=ab": (
        f"https://b.s3.amazonaws.com/k?X-Amz-Credential={R}&X-Amz-Date=1&X-Amz-Signature={R}"
    ),
    "https://x.blob.core.windows.net/c?sv=1&sig=a%2Fb": f"https://x.blob.core.windows.net/c?sv=1&sig={R}",
    "/x?token=": "/x?token=",
    "/x?a=1&&b=&=&=c": "/x?a=1&&b=&=&=c",
}


@pytest.mark.parametrize(("url", "expected"), CASES.items(), ids=list(CASES))
def test_what_is_hidden(url, expected):
    assert redactor.url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "http://h",
        "http://[::1]:80/x?a=1",
        "http://h:80/a@b",
        "/x?q=a+b&page=2#top",
        "*",
        "?",
        "#",
        "http://",
        "://",
        "@",
        "joao@example.com",
        "/ação?é=ü",
    ],
)
def test_what_stays(url):
    """The same object."""
    assert redactor.url(url) is url


@given(near.any_text)
@settings(max_examples=500, deadline=None)
@example("11.222.333/0001-81:@")
def test_garbage_is_no_error_and_twice_is_once(url):
    for hide in (redactor.url, redactor.query_string):
        once = hide(url)
        assert hide(once) == once


@given(near.any_text | st.lists(st.sampled_from([*near.PIECES, "a=1", "&", "?", "code=x", "state=y"]), max_size=10).map("".join))
@settings(max_examples=500, deadline=None)
def test_the_short_way_says_the_same_as_the_long_one(url):
    if redactor.url(url) is url:
        assert hide_in_url(url, redactor.is_secret_key, redactor.text) == url


@given(
    key=st.sampled_from(near.KEYS),
    secret=near.secret_values,
    others=st.dictionaries(st.sampled_from("abcdef"), st.text(max_size=5), max_size=4),
    at=st.integers(0, 4),
)
@settings(max_examples=300, deadline=None)
def test_a_planted_parameter_disappears_and_the_others_are_as_before(key, secret, others, at):
    pairs = [(name, quote(value, safe="")) for name, value in others.items()]
    pairs.insert(at, (key, quote(secret, safe="~")))
    query = "&".join(f"{name}={value}" for name, value in pairs)
    clean = redactor.url(f"https://u:{quote(secret, safe='')}@h.example/p?{query}#f")

    assert f"={quote(secret, safe='~')}" not in clean
    assert urlsplit(clean).hostname == "h.example"
    assert {name: value for name, value in parse_qsl(urlsplit(clean).query, keep_blank_values=True) if name in others} == others


@given(near.numbers | near.tokens)
@settings(max_examples=200, deadline=None)
def test_a_planted_shape_disappears_wherever_it_is(secret):
    coded = quote(secret, safe="")
    url = redactor.url(
        f"https://{secret}@h/a/{secret.replace('/', '-') if '/' in secret else secret}?x={coded}&y={quote(coded, safe='')}&{coded}=1#{coded}"
    )
    if "/" not in secret:
        assert secret not in url
    assert f"x={coded}" not in url
    assert quote(coded, safe="") not in url.partition("?")[2] or coded == quote(coded, safe="")


def test_headers():
    assert redactor.header("Authorization", "Bearer x") == "[redacted]"
    assert redactor.header("X-Api-Key", "x") == "[redacted]"
    assert redactor.header("Set-Cookie", "a=b") == "[redacted]"
    assert redactor.header("Referer", "https://h/?token=a&b=1") == f"https://h/?token={R}&b=1"
    assert redactor.header("Location", "/x?token=a") == f"/x?token={R}"
    assert redactor.header("User-Agent", "curl/8 (password=x)") == "curl/8 (password=[redacted])"
    assert redactor.header("WWW-Authenticate", 'Basic realm="x"') == 'Basic realm="x"'
    assert redactor.header("Content-Type", "text/html") == "text/html"
