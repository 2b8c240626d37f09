"""Texts of others in CSV files, which spreadsheets run as formulas where they begin like one."""

import re

LIKE_A_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def as_cell(text: str) -> str:
    """The text with an apostrophe before it, if a spreadsheet would take it for a formula. Numbers stay as they are."""
    return f"'{text}" if LIKE_A_FORMULA.match(text) and not is_number(text) else text


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def from_cell(cell: str) -> str:
    """What ``as_cell`` was given."""
    return cell[1:] if cell.startswith("'") and LIKE_A_FORMULA.match(cell) else cell
