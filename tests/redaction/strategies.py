"""Texts that come close to secrets, and secrets."""

import random

from hypothesis import strategies as st

KEYS = [
    "password",
    "X-Api-Key",
    "user_password",
    "csrftoken",
    "cpf_cliente",
    "db.password",
    "SENHA",
    "clientSecret",
    "Authorization",
    "otp",
]
HARMLESS_KEYS = ["token_count", "gen_ai.usage.input_tokens", "passenger", "secretary", "author", "cookie_count", "status", "keyboard"]

#: Pieces of everything that some pattern looks for; glued at random they come close to all of them.
PIECES = [
    *KEYS, *HARMLESS_KEYS, "=", ": ", ":", "=>", "'", '"', "\\", '\\"', "--", " ", "\n", "\t", ",", ";", "&", "?", "#", "@", "/", "//", "://", ".",
    "-", "_", "(", ")", "[", "]", "{", "}", "<", ">", ")=(", "%s", "%3D", "%2F", "\\n", "None", "0", "12", "345", "6789", "01234567890", "529.982.247-25",
    "52998224725", "529982247-25", "529 982 247 25", "11.222.333/0001-81", "11222333000181", "11222333/0001-81", "12.ABC.345/01DE-35", "12ABC34501DE35",
    "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "3782 822463 10005", "378282246310005", "30569309025904", "Bearer ", "bearer", "basic ",
    "Basic", "dXNlcjpwYXNz", "abcDEF123", "eyJ", "eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxIn0", "ghp_", "github_pat_", "glpat-", "AKIA", "ASIA",
    "IOSFODNN7EXAMPLE", "AIza", "sk-", "sk_live_", "rk_test_", "whsec_", "xoxb-", "SG.", "npm_", "pypi-", "hf_", "shpat_", "dop_v1_", "ya29.",
    "a" * 14, "Ab1" * 8, "0af1" * 10, "-----BEGIN ", "RSA PRIVATE KEY-----", "-----END ", "http", "user", "host", "joao@example.com", "é", "\u212a", "\u0130", "\ud800",
    "\U0001f600", "٣", "s", "k", "REDACTED", "[redacted]",
]  # fmt: skip

near_secrets = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=14).map("".join)
any_text = near_secrets | st.text()
# What people write around a value: letters that cannot join with a secret to something else.
prose = st.lists(
    st.sampled_from(["pedido", "criado", "em", "35", "ms", "por", "joao", "GET", "/x/", "ação", "1234", "ok."]), max_size=8
).map(" ".join)
secret_values = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~+-!$*^", min_size=6, max_size=40).filter(
    lambda value: any(c.isalnum() for c in value) and not value.strip("*").startswith("$") and value[0].isalnum()
)


def cpf(digits: str) -> str:
    """Nine digits and their check digits."""
    for size in (9, 10):
        total = sum(int(digit) * (size + 1 - at) for at, digit in enumerate(digits[:size]))
        digits += str(total * 10 % 11 % 10)
    return digits


def cnpj(characters: str) -> str:
    """Twelve letters and digits and their check digits."""
    for _ in range(2):
        weights = [2 + at % 8 for at in range(len(characters))]
        total = sum((ord(character) - 48) * weight for character, weight in zip(reversed(characters), weights, strict=True))
        characters += str(0 if total % 11 < 2 else 11 - total % 11)
    return characters


def card(digits: str) -> str:
    """Fifteen digits and Luhn's."""
    total = sum(int(digit) * 2 - 9 * (digit > "4") if at % 2 == 0 else int(digit) for at, digit in enumerate(digits))
    return digits + str(-total % 10)


nine_digits = st.text("0123456789", min_size=9, max_size=9).filter(lambda digits: len(set(digits)) > 1)
cpfs = nine_digits.map(cpf)
cnpjs = st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=12, max_size=12).filter(lambda value: len(set(value)) > 1).map(cnpj)
cards = st.text("0123456789", min_size=14, max_size=14).map(lambda digits: card("4" + digits))


def formatted_cpf(digits: str) -> str:
    return f"{digits[:3]}.{digits[3:6]}.{digits[6:9]}-{digits[9:]}"


def formatted_cnpj(value: str) -> str:
    return f"{value[:2]}.{value[2:5]}.{value[5:8]}/{value[8:12]}-{value[12:]}"


formatted_numbers = cpfs.map(formatted_cpf) | cnpjs.map(formatted_cnpj) | cards.map(lambda n: f"{n[:4]} {n[4:8]} {n[8:12]} {n[12:]}")
numbers = formatted_numbers | cpfs | cnpjs | cards


def token(
    prefix: str, size: int, alphabet: str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
) -> st.SearchStrategy[str]:
    return st.integers().map(lambda seed: prefix + "".join(random.Random(seed).choices(alphabet, k=size)))


URL_SAFE = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-"
tokens = st.one_of(
    token("ghp_", 36), token("github_pat_11ABCDEFG0abcdefghijkl_", 59), token("glpat-", 20, URL_SAFE), token("AKIA", 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    token("AIza", 35, URL_SAFE), token("sk-ant-api03-", 90, URL_SAFE), token("sk-", 48), token("sk_live_", 24), token("whsec_", 32),
    token("xoxb-123456789012-1234567890123-", 24), token("SG.abcdefghijklmnopqrstuv.", 43, URL_SAFE), token("npm_", 36), token("hf_", 34),
    token("shpat_", 32, "0123456789abcdef"), token("dop_v1_", 64, "0123456789abcdef"), token("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.", 43, URL_SAFE),
)  # fmt: skip
