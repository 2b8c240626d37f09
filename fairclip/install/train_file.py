"""The lines that register our trainers in a checkout's training script: put in, found again, taken out."""

import ast
from collections.abc import Mapping, Sequence

from fairclip.core.errors import UserError

NOTE = "  # FAIR: fair install-into"  # marks our lines
NOTES = (NOTE, "  # FAIR: scripts/install_into.py")  # the second is that of checkouts from before


class Unrecognised(ValueError):
    """The file is not made like CoOp's train.py; the message says why."""


def register(
    source: bytes, modules: Mapping[str, bool], trainers: Sequence[str] = (), script: str = "train.py"
) -> bytes:
    """The script with our modules registered, in the place of those that were.

    Only what is lacking is added: an import or a call that is there already is not repeated.

    Args:
        modules: name ("trainers.fair") -> whether it has an extend_cfg to call.
        trainers: the names they register ("FAIR"), for a script that builds a trainer but does not call its train().
        script: the file's name, for messages.

    Raises:
        UserError: the file is not made like CoOp's train.py.
    """
    source = unregister(source)
    try:
        result = insert(source, insertions(source, modules, trainers))
        parse(result)
    except Unrecognised as error:
        raise UserError(
            f"{script} is not recognised: {error}. Nothing was changed. To register FAIR by hand, add `import "
            "trainers.fair` to the imports and call `trainers.fair.extend_cfg(cfg)` before the config files are merged"
        ) from None
    return result


def unregister(source: bytes) -> bytes:
    """The script without the lines that carry our mark, byte for byte as it was."""
    marks, result = tuple(note.encode() for note in NOTES), b""
    for line in source.splitlines(keepends=True):
        if not line.rstrip(b"\r\n").endswith(marks):
            result += line
        elif not line.endswith((b"\n", b"\r")):  # the last line: the one before it had no line break
            result = result.removesuffix(b"\n").removesuffix(b"\r")
    return result


def insertions(source: bytes, modules: Mapping[str, bool], trainers: Sequence[str]) -> dict[int, list[bytes]]:
    """What the script needs to know our modules: number of the line to insert behind -> lines."""
    tree = parse(source)
    imports = [node for node in tree.body if any(name.count(".") <= 1 for name in trainers_of(node))]
    if not imports:
        raise Unrecognised("it imports no module of trainers/ at its top level (as in `import trainers.coop`)")
    function = find_extend_cfg(tree)
    plain = [alias for node in tree.body if isinstance(node, ast.Import) for alias in node.names if not alias.asname]
    known = {alias.name for alias in plain}
    called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
    cfg = function.args.args[0].arg

    def line(text: str, beside: ast.stmt | None = None) -> bytes:
        first = source.splitlines()[beside.lineno - 1] if beside else b""
        return first[: len(first) - len(first.lstrip())] + text.encode() + NOTE.encode() + newline_of(source)

    wanted = {
        max(end_line(node) for node in imports): [line(f"import {m}") for m in modules if m not in known],
        last_line_run(function): [
            line(f"{m}.extend_cfg({cfg})", function.body[0])
            for m, extends in modules.items()
            if extends and f"{m}.extend_cfg" not in called
        ],
    }
    if trainers and (found := built_untrained(tree)):
        call = found.value
        assert isinstance(call, ast.Call)
        built, name = ast.unparse(call), f"{ast.unparse(call.args[0])}.TRAINER.NAME"
        wanted[found.lineno - 1] = [line(f"if {name} in {tuple(trainers)!r}: return {built}.train()", found)]
    return {number: new for number, new in wanted.items() if new}


def built_untrained(tree: ast.Module) -> ast.Assign | None:
    """Where a function builds a trainer that nobody calls train() of, `trainer = build_trainer(cfg)`. UPL and LaFTer go
    on from there by loops of their own."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    methods = [call.func for call in calls if isinstance(call.func, ast.Attribute)]
    trained = {ast.unparse(method.value) for method in methods if method.attr == "train"}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call) or not node.value.args:
                continue
            builds = ast.unparse(node.value.func).split(".")[-1] == "build_trainer"
            if builds and node.lineno > function.lineno:
                return None if trained & {ast.unparse(node.targets[0]), ast.unparse(node.value)} else node
    return None


def find_extend_cfg(tree: ast.Module) -> ast.FunctionDef:
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "extend_cfg"]
    if len(functions) > 1:
        raise Unrecognised("it has several extend_cfg")
    if not functions or not functions[0].args.args:
        raise Unrecognised("it has no function extend_cfg(cfg)")
    if functions[0].body[0].lineno == functions[0].lineno:
        raise Unrecognised("its extend_cfg is written on one line")
    return functions[0]


def last_line_run(function: ast.FunctionDef) -> int:
    """The end of the function, or the line before its first `return`: what stands behind one may not be run."""
    end = function.lineno
    for node in function.body:
        if any(isinstance(part, ast.Return) for part in ast.walk(node)):
            return max(end, start_line(node) - 1)
        end = end_line(node)
    return end


def insert(source: bytes, new: dict[int, list[bytes]]) -> bytes:
    lines = source.splitlines(keepends=True)
    for number in sorted(new, reverse=True):
        if number and not lines[number - 1].endswith((b"\n", b"\r")):
            # The file ends without a line break. So does the new last line, and `unregister` knows by that.
            lines[number - 1] += newline_of(source)
            new = new | {number: [*new[number][:-1], new[number][-1].rstrip(b"\r\n")]}
        lines[number:number] = new[number]
    return b"".join(lines)


def parse(source: bytes) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise Unrecognised(f"it is not valid Python ({error})") from None


def trainers_of(node: ast.AST) -> list[str]:
    """Modules of trainers/ that a statement imports, by full name, or the package itself."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == "trainers"]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        if node.module == "trainers":
            return [f"trainers.{alias.name}" for alias in node.names]
        return [node.module] if node.module.startswith("trainers.") else []
    return []


def start_line(node: ast.stmt) -> int:
    """The first line of a statement, its decorators included."""
    decorators = node.decorator_list if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def end_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def newline_of(source: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in source else b"\n"
