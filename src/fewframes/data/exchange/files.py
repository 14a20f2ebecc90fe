"""Read the XML, JSON and text of exports safely, and find the videos that they name."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from fewframes.core.storage import is_address
from fewframes.data.list_text import text_of
from fewframes.data.samples import ReadOptions
from fewframes.errors import DataError

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Object = Mapping[str, Any]


def xml_of(path: Path) -> ElementTree.Element:
    """Return the root of an XML file. Raises DataError if it is not XML, or declares a document type or an entity.

    Entities could grow to any size, or name files of this machine. No export has them.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{path}: declares a document type or entities, which no export does; take <!DOCTYPE ...> out")

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (expat.ExpatError, LookupError, ValueError) as error:  # no XML, an unknown encoding, one of several bytes
        raise DataError(f"{path}: not whole XML ({error}); export it again") from None
    return builder.close()


def xml_text(root: ElementTree.Element) -> str:
    """Return an XML document. Raises DataError for a character that XML cannot hold."""
    for element in root.iter():
        for text in (element.text or "", *element.attrib.values()):
            if match := NOT_XML.search(text):
                raise DataError(f"{text!r}: XML cannot hold the character {match[0]!r}; rename it")
    ElementTree.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def json_of(path: Path) -> Any:
    """Return the values in a JSON file. Raises DataError if it is not JSON."""
    try:
        return json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def json_text(values: object) -> str:
    """Return values as the text of a JSON file. Bytes of names that are no text are escaped."""
    return json.dumps(values, indent=1) + "\n"


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in a JSON list or among the values of an object; nothing for any other value."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict)]


def inner(value: object, *keys: str) -> dict[str, Any]:
    """Return the object at a path of keys; an empty one if there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def number(where: str, name: str, value: object) -> float:
    """Return a finite number. Raises DataError for anything else.

    Args:
        where: The file and the place in it, for error texts.
        name: Name of the value, for error texts.
        value: A number, or text that is one.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{where}: {name} {value!r}: needs a number")
    return found


def rate(where: str, name: str, value: object) -> float:
    """Return a number above 0. Raises DataError for anything else."""
    found = number(where, name, value)
    if found <= 0:
        raise DataError(f"{where}: {name} {value!r}: needs a number above 0")
    return found


def whole_number(where: str, name: str, value: object) -> int:
    """Return a whole number. Raises DataError for anything else."""
    found = number(where, name, value)
    if found != int(found):
        raise DataError(f"{where}: {name} {value!r}: needs a whole number")
    return int(found)


def located(source: Path, options: ReadOptions, *names: str) -> str:
    """Return the path of the first of these names that exists, or else the path where the last one is looked for as written.

    Args:
        source: The export, to which paths are relative.
        options: Says where videos are.
        names: The names that the video may have.
    """
    found = options.find(source, *(name for name in names if not is_address(name)), names[-1])
    return found if os.path.exists(found) else options.find_written(source, names[-1])


def written_path(path: str, out: Path) -> str:
    """Return how a file names a video: relative to itself if the video lies beside or below it, else absolute."""
    if is_address(path):
        return path
    inner = os.path.relpath(os.path.abspath(path), out.parent.absolute())
    return Path(os.path.abspath(path) if inner.startswith("..") else inner).as_posix()
