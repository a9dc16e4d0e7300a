"""Card, CPF and CNPJ numbers. They are told from other long numbers by their check digits."""

from __future__ import annotations

import re
from typing import Final

# Not inside a longer word or number; an escape in front (%3D, \n) is no word.
_LEFT: Final = r"(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))"
_RIGHT: Final = r"(?![0-9A-Za-z])"
_NUMBER: Final = re.compile(
    _LEFT + r"(?:"
    r"(?P<cpf>[0-9]{3}(?P<c>[. ])[0-9]{3}(?P=c)[0-9]{3}[-/. ]?[0-9]{2}|[0-9]{9}[-/]?[0-9]{2})" + _RIGHT + r"|"
    r"(?P<cnpj>[0-9A-Z]{2}\.[0-9A-Z]{3}\.[0-9A-Z]{3}/[0-9A-Z]{4}-[0-9]{2}|[0-9]{8}/[0-9]{4}-[0-9]{2}|[0-9A-Z]{12}[0-9]{2})" + _RIGHT + r"|"
    r"(?P<card>[0-9]{13,19}|[0-9]{4}(?P<s>[ -])[0-9]{4}(?P=s)[0-9]{4}(?P=s)[0-9]{4}|[0-9]{4}(?P<t>[ -])[0-9]{6}(?P=t)[0-9]{4,5})"
    + _RIGHT
    + r")"
)
#: What stands before the fraction of a float, whose digits may be anything.
_FRACTION: Final = re.compile(r"(?<![0-9])[0-9]{1,10}\.\Z")
_SEPARATORS: Final = str.maketrans("", "", ".-/ ")
_CPF_DIGITS: Final = 11
_CNPJ_LENGTH: Final = 14
_CNPJ_WEIGHTS: Final = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
_LUHN_DOUBLED: Final = str.maketrans("0123456789", "0246813579")
# First digits and lengths of the schemes in use: Visa, Mastercard, Elo, Hipercard, Discover, Maestro, UnionPay, JCB, Amex, Diners.
_CARD: Final = re.compile(r"4(?:\d{12}|\d{15}|\d{18})|(?:5\d|6\d|2[2-7]|35)\d{14}|6\d{17,18}|3[47]\d{13}|3[0689]\d{12}", re.ASCII)


def is_cpf(digits: str) -> bool:
    """Both check digits hold. Eleven equal digits hold too, but are never issued."""
    if len(digits) != _CPF_DIGITS or digits == digits[0] * _CPF_DIGITS:
        return False
    numbers = [int(digit) for digit in digits]
    for size in (9, 10):
        total = sum(number * (size + 1 - at) for at, number in enumerate(numbers[:size]))
        if total * 10 % 11 % 10 != numbers[size]:
            return False
    return True


def is_cnpj(characters: str) -> bool:
    """Both check digits hold; letters count by their place after ``0``, as in the form issued since July 2026."""
    if characters == characters[0] * len(characters):
        return False
    numbers = [ord(character) - 48 for character in characters]
    for size in (12, 13):
        total = sum(number * weight for number, weight in zip(numbers[:size], _CNPJ_WEIGHTS[13 - size :], strict=True))
        rest = total % 11
        if numbers[size] != (0 if rest < 2 else 11 - rest):  # noqa: PLR2004 (the definition says two)
            return False
    return True


def is_card(digits: str) -> bool:
    """A scheme's first digits and length, and Luhn's sum."""
    if _CARD.fullmatch(digits) is None or digits == digits[0] * len(digits):
        return False
    both = digits[-1::-2] + digits[-2::-2].translate(_LUHN_DOUBLED)
    return (sum(both.encode()) - ord("0") * len(both)) % 10 == 0


def _is_number(match: re.Match[str]) -> bool:
    found = match[0].translate(_SEPARATORS)
    if match["cpf"] is not None and is_cpf(found):
        return True
    if len(found) == _CNPJ_LENGTH and is_cnpj(found):
        return True
    return found.isdigit() and is_card(found)


def hide_numbers(text: str, mark: str) -> str:
    """``text`` without card, CPF and CNPJ numbers."""
    pieces: list[str] = []
    done = at = 0
    while (match := _NUMBER.search(text, at)) is not None:
        # After a miss the next candidate may begin inside of it: "1234 4111 1111 1111 1111".
        at = match.start() + 1
        if _is_number(match) and not (match[0].isdigit() and _FRACTION.search(text, max(0, at - 13), at - 1)):
            pieces += (text[done : match.start()], mark)
            done = at = match.end()
    return "".join(pieces) + text[done:] if pieces else text
