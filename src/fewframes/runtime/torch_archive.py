"""Safe opening of files of torch.export (.pt2): nothing in such a file can run code.

`torch.export.load` itself is not safe. It unpickles weights, constants and example inputs if a file says that they are pickled. It
evaluates the expressions of shapes, executes guards, builds Python source from names, calls any function of torch that a node
names, and loads compiled libraries. So this module checks everything in the archive first. Content that is not plain is refused,
and content that a graph does not need is left out. torch then reads a copy in memory of the checked content, never the file.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewframes.errors import WeightsError

MOST_TEXT = 2**26
"""The most bytes of the description of a graph. For 64 frames of a ViT-B it has one MB."""
MOST_EXPRESSION = 2000
"""The most characters of an expression."""
WORD = re.compile(r"[\w.+-]*", re.ASCII)
"""The pattern of every name in a graph. It is strict, because torch writes some names into Python source."""
TARGET = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|eq|ne|lt|le|gt|ge|getitem)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_(max|min|int|float|not|ite|sum)",
    re.ASCII,
)
"""The functions that nodes may call: arithmetic on tensors and numbers."""
READS_FILES = re.compile(r"torch\.ops\.aten\.(from_file|save|load)\b")
"""The functions that `TARGET` matches, but that read or write files."""
FUNCTIONS = frozenset(
    """Symbol Integer Rational Add Mul Min Max Mod PythonMod FloorDiv CleanDiv CeilDiv IntTrueDiv FloatTrueDiv ToFloat FloorToInt
    CeilToInt TruncToInt ModularIndexing Where Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan
    GreaterThan And Or Not floor ceiling""".split()
)
"""The functions in expressions over numbers of videos and frames. Powers are missing, because they can be too large to compute."""
SPEC_TYPES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", None})
"""The types that structures of inputs and outputs may have."""
DROPPED = frozenset({"metadata", "guards_code"})
"""The keys of a graph that are left out: the source position of each node, and checks that torch would execute as Python."""
REFUSED = frozenset({"as_custom_obj", "as_graph", "as_operator", "custom_obj", "token", "as_opaque"})
"""The keys of a graph whose values must be empty, because they stand for more than tensors and numbers."""
TEXTS = (
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
"""The names of entries that are text. All from the sixth on must be in the archive."""
SAMPLES = "data/sample_inputs/model.pt"
"""The name of the entry with pickled example inputs, which is emptied."""
PAYLOAD = re.compile(r"data/(weights/weight|constants/tensor)_\d+", re.ASCII)
"""The names of entries with the numbers of a tensor."""
EXTRA = re.compile(r"extra/\w+", re.ASCII)
"""The names of entries that the exporting program added, such as the card."""
DTYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
"""The bytes of a number by torch.export's code of its type: integers, float16, float32, float64, bool, bfloat16."""
DAMAGE = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    NotImplementedError,
    RecursionError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)
"""The errors that reading raises if the bytes or descriptions in an archive are damaged."""
Entries = dict[str, zipfile.ZipInfo]
"""The entries of an archive by their names below its one folder."""
Check = Callable[[dict[str, Any], Entries], dict[str, Any]]
"""A function that takes the content of a JSON entry, raises `_NotPlain` if it is not plain, and returns what torch may read."""
CPU = {"type": "cpu", "index": None}


class _NotPlain(ValueError):
    """An error for content of a file that torch would run, or that cannot be true."""


def plain_archive(path: str) -> io.BytesIO:
    """Return a copy of a file of torch.export that holds no code. Raises WeightsError, which says what is wrong with the file."""
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path}: cannot be read (cut short, or not a .pt2 file at all); export it again")
    try:
        return _copy(path)
    except _NotPlain as error:
        raise WeightsError(
            f"{path}: refused, it is not a plain graph ({error}); export it again from the model"
        ) from None
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{path}: damaged ({reason}); export it again") from None


def _copy(path: str) -> io.BytesIO:
    """Return a copy of the archive with its JSON checked. Raises _NotPlain, and any of `DAMAGE`."""
    copied = io.BytesIO()
    size_bytes = Path(path).stat().st_size
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copied, "w", zipfile.ZIP_STORED) as plain:
        entries = _entries(source, size_bytes)
        for name, entry in entries.items():
            if name == SAMPLES:
                content = b""
            elif name.endswith(".json"):
                content = json.dumps(CHECKS[name](_json(source.read(entry)), entries)).encode()
            else:
                content = source.read(entry)
            plain.writestr(zipfile.ZipInfo(entry.filename), content)
    copied.seek(0)
    return copied


def _entries(source: zipfile.ZipFile, size_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of an archive by their names below its one folder. Raises _NotPlain if one of them cannot be there."""
    found: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for entry in source.infolist():
        folder, _, name = entry.filename.partition("/")
        folders.add(folder)
        if name in found or len(folders) > 1:
            raise _NotPlain(f"{entry.filename!r} is there twice, or in a folder of its own")
        if name not in (*TEXTS, SAMPLES) and not PAYLOAD.fullmatch(name) and not EXTRA.fullmatch(name):
            raise _NotPlain(f"{entry.filename!r} is not a part of an export")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _NotPlain(f"{entry.filename!r} is compressed")
        if name in TEXTS and entry.file_size > MOST_TEXT:
            raise _NotPlain(f"{entry.filename!r} has {entry.file_size} bytes")
        found[name] = entry
    # Entries are not compressed, so together they are smaller than the file, unless several share the same bytes.
    if sum(entry.file_size for entry in found.values()) > size_bytes:
        raise _NotPlain("its entries overlap")
    missing = [name for name in (*TEXTS[5:], SAMPLES) if name not in found]
    if missing:
        raise _NotPlain(f"it has no {missing[0]}, as files of today's torch.export have")
    return found


def _json(content: bytes) -> dict[str, Any]:
    """Return the JSON object in these bytes. Raises _NotPlain for any other value."""
    value = json.loads(content)
    if not isinstance(value, dict):
        raise _NotPlain(f"{type(value).__name__} in place of an object")
    return value


def _checked_graph(graph: dict[str, Any], _: Entries) -> dict[str, Any]:
    """Return the description of a graph without what it does not need. Raises _NotPlain if torch would run a part of it."""
    return {name: _plain(name, value) for name, value in graph.items()}


def _plain(key: str, value: Any) -> Any:
    """Return the value of this key of a graph without what the graph does not need. Raises _NotPlain if torch would run it."""
    if key in DROPPED:
        return {} if isinstance(value, dict) else []
    if value and (key in REFUSED or key in {"custom_obj_values", "treespec_namedtuple_fields"}):
        raise _NotPlain(f"it has {key}")
    if isinstance(value, dict):
        for name in value:
            _check_word(name)
        return {name: _plain(name, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(key, inner) for inner in value]
    if isinstance(value, str):
        TEXT_CHECKS.get(key, _check_word)(value)
    return value


def _check_word(text: str) -> None:
    """Raise _NotPlain unless the text is a name."""
    if not WORD.fullmatch(text):
        raise _NotPlain(f"{text[:60]!r} is not a name")


def _check_target(text: str) -> None:
    """Raise _NotPlain unless the text names a function that nodes may call."""
    if not TARGET.fullmatch(text) or READS_FILES.match(text):
        raise _NotPlain(f"it calls {text[:60]!r}")


def _check_expression(text: str) -> None:
    """Raise _NotPlain unless the text is arithmetic on whole numbers and symbols. sympy would evaluate anything else as Python."""
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= MOST_EXPRESSION else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or not _is_arithmetic(tree.body):
        raise _NotPlain(f"{text[:60]!r} is not an expression of a size")


def _is_arithmetic(node: ast.expr) -> bool:
    """Return True if an expression has only whole numbers, truth values, symbols, arithmetic, and functions of `FUNCTIONS`."""
    match node:
        case ast.Constant(value=bool()):
            return True
        case ast.Constant(value=int() as number):
            return abs(number) < 2**63
        case ast.Name(id=name):
            return re.fullmatch(r"[a-z]+\d+", name) is not None
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _is_arithmetic(inner)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Mod(), right=right):
            return _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=keywords):
            return re.fullmatch(r"\w+", name, re.ASCII) is not None and all(map(_is_assumption, keywords))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in FUNCTIONS and all(map(_is_arithmetic, arguments))
    return False


def _is_assumption(keyword: ast.keyword) -> bool:
    """Return True if a keyword argument is an assumption about a symbol, such as `integer=True`."""
    return keyword.arg in {"positive", "integer", "nonnegative"} and isinstance(keyword.value, ast.Constant)


def _check_spec(text: str) -> None:
    """Raise _NotPlain unless the text describes a structure of inputs or outputs made of tuples, lists and dictionaries."""
    if text:
        _check_structure(json.loads(text))


def _check_structure(value: Any) -> None:
    """Raise _NotPlain unless a part of such a structure is plain."""
    if isinstance(value, list):
        for inner in value:
            _check_structure(inner)
    elif isinstance(value, dict):
        if value.keys() != {"type", "context", "children_spec"} or value["type"] not in SPEC_TYPES:
            raise _NotPlain(f"its inputs or outputs are of type {str(value.get('type'))[:60]!r}")
        context = json.loads(value["context"] or "null")
        if context is not None and not (isinstance(context, list) and all(isinstance(name, str) for name in context)):
            raise _NotPlain("its inputs or outputs have a context that is not a list of names")
        for name in context or ():
            _check_word(name)
        _check_structure(value["children_spec"])
    elif not isinstance(value, int):
        raise _NotPlain(f"{str(value)[:60]!r} among its inputs or outputs")


def _checked_payloads(folder: str) -> Check:
    """Return the check of a list of tensors whose numbers are in this folder."""

    def check(listed: dict[str, Any], entries: Entries) -> dict[str, Any]:
        """Return the list. Raises _NotPlain if a tensor is pickled, or if its numbers are missing or too few."""
        for name, payload in listed["config"].items():
            _check_word(name)
            path = f"{folder}/{payload['path_name']}"
            if payload["use_pickle"] is not False or not PAYLOAD.fullmatch(path):
                raise _NotPlain(f"{name} is pickled")
            if path not in entries:
                raise _NotPlain(f"{path} is missing")
            if not _fits(payload["tensor_meta"], entries[path].file_size):
                raise _NotPlain(f"the shape of {name} does not fit the bytes in the file")
        return listed

    return check


def _fits(meta: dict[str, Any], num_bytes: int) -> bool:
    """Return True if a tensor is on the CPU and all numbers of its shape are within its bytes."""
    sizes = [size["as_int"] for size in meta["sizes"]]
    strides = [stride["as_int"] for stride in meta["strides"]]
    numbers = [*sizes, *strides, offset := meta["storage_offset"]["as_int"]]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(sizes) != len(strides):
        return False
    if meta["device"] != CPU or meta["dtype"] not in DTYPE_BYTES:
        return False
    number_bytes = DTYPE_BYTES[meta["dtype"]]
    if 0 in sizes:
        return num_bytes == 0
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    # With a stride of 0 a large shape needs few bytes, so the number of elements is compared too.
    return math.prod(sizes) * number_bytes <= num_bytes and (last + 1) * number_bytes <= num_bytes


TEXT_CHECKS: dict[str, Callable[[str], None]] = {
    "target": _check_target,
    "expr_str": _check_expression,
    "in_spec": _check_spec,
    "out_spec": _check_spec,
}
"""The check of a text by its key in a graph. All other texts are names."""
CHECKS: dict[str, Check] = {
    "models/model.json": _checked_graph,
    "data/weights/model_weights_config.json": _checked_payloads("data/weights"),
    "data/constants/model_constants_config.json": _checked_payloads("data/constants"),
}
"""The check of each JSON entry by its name."""
