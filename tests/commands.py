"""The commands of `fair` as functions of their arguments: each returns the exit status."""

from collections.abc import Callable, Sequence

from fairclip import cli


def command(*words: str) -> Callable[[Sequence[str]], int]:
    return lambda arguments: cli.main([*words, *arguments])


adapt = command("adapt")
train = command("train")
table = command("table")
predict = command("predict")
draw_crops = command("draw-crops")
data = command("data")
describe = command("describe")
bench = command("bench")
install_into = command("install-into")
export = command("export")
