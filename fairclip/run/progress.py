"""What a run says of its epochs."""

import datetime
from collections.abc import Mapping
from typing import Any

LINES = 15  # epochs that are shown at most; log.txt has all

# Name in the history -> how it is shown, in this order.
SHOWN = {
    "loss": "loss {:.4g}",
    "pseudo_accuracy": "pseudo-labels {:.1f} % right",
    "weight": "weight {:.2f}",
    "test_accuracy": "test {:.2f} %",
    "images_per_second": "{:.0f} images/s",
}


def is_shown(epoch: int, epochs: int) -> bool:
    """Whether the line of an epoch (from 1) is for everybody: of many epochs, some evenly spaced ones are."""
    return epoch == epochs or epoch % -(-epochs // LINES) == 0


def epoch_line(record: Mapping[str, Any], epochs: int, seconds_left: float) -> str:
    """One line on a finished epoch, from its record in the history."""
    facts = [form.format(record[name]) for name, form in SHOWN.items() if name in record]
    if seconds_left > 0:
        facts.append(f"ETA {datetime.timedelta(seconds=round(seconds_left))}")
    return f"epoch {record['epoch']}/{epochs}: {', '.join(facts)}"


def epoch_details(record: Mapping[str, Any]) -> str:
    """All figures of an epoch."""
    return f"epoch {record['epoch']}: " + " ".join(f"{k} {v:.6g}" for k, v in record.items() if k != "epoch")
