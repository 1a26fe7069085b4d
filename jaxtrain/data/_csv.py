"""Tables of numbers from CSV files."""

import array
import csv as csv_module
import itertools
import math
import os
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import jax
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset

OVERFLOW = 2.0**128 - 2.0**103  # float32 rounds what is not below it to infinity


class Table(NamedTuple):
    """The examples of a table, the names of its features, and those of its classes, if any."""

    dataset: ArrayDataset
    columns: list[str]
    classes: list[str] | None


def csv(
    path: str | os.PathLike,
    *,
    label: str | int,
    classes: bool | Sequence[str] = False,
    header: bool = True,
    delimiter: str = ",",
) -> Table:
    r"""Reads a table whose rows are examples, all numbers but for the label.

    It is read row by row, and a cell that is no finite number is an error with its line. Tables
    with text or missing cells are for `pandas.read_csv`: `clean.nulls` and the other checks take
    the frame, and `ArrayDataset(frame.to_numpy(), labels)` its numbers.

    Args:
        path: The file, UTF-8.
        label: The column of the labels: its name, or its position, from 0 or, from the end, -1.
        classes: False for labels that are numbers, to regress. True for classes: the labels that
            there are, less the spaces around them, sorted, as numbers where all are whole ones. Or
            the names of the classes in their order, as for a test set `classes=training.classes`.
        header: Whether the first row has the names of the columns; without it they are "0", "1"
            and so on.
        delimiter: The character that separates cells.

    Returns:
        A Table: `dataset`, with images (n, features) in float32, or float64 under x64, and labels
        likewise, (n, 1), or classes, (n,) int32; `columns` and `classes`, lists of names.

    Raises:
        DataError: If a row is shorter or longer than the first, a cell is not a finite number, a
            label is empty or none of the classes, a byte is not UTF-8, or there are no rows.
        ConfigError: If there is no such column, or two classes have one name.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "flowers.csv")
        >>> _ = path.write_text("length,width,kind\n1.5,2,rose\n3,0.5,iris\n")
        >>> table = csv(path, label="kind", classes=True)
        >>> table.columns, table.classes, table.dataset.label.tolist()
        (['length', 'width'], ['iris', 'rose'], [1, 0])
    """
    _check.flag("csv", "header", header)
    if not isinstance(path, str | os.PathLike):  # open takes the number of an open file
        _check.fail("csv", "path", "a path", path, error=TypeError)
    if not (isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in '" \r\n'):
        _check.fail("csv", "delimiter", "one character, no space, quote or line end", delimiter)
    names = [] if isinstance(classes, bool) else classes
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        _check.fail("csv", "classes", "True, False or names in order", classes, error=TypeError)
    if len(set(names)) < len(names):
        _check.fail("csv", "classes", "names of which no two are alike", classes)
    limit = math.inf if jax.config.read("jax_enable_x64") else OVERFLOW
    values, labels, lines = array.array("d"), [], []
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        text = _utf8(path, file)
        rows = csv_module.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
        whole = filter(None, rows)  # blank lines are empty rows
        try:
            columns = next(whole, [])
            first = [] if header else [columns]
            columns = columns if header else [str(i) for i in range(len(columns))]
            if len(columns) < 2 or len(set(columns)) < len(columns):
                _fail(path, rows.line_num, "a row of two or more columns, no two alike", columns)
            at = _position(label, columns)
            target = columns.pop(at)
            for row in itertools.chain(first, whole):
                if len(row) != len(columns) + 1:
                    rule = f"a row of {len(columns) + 1} cells, as the first"
                    _fail(path, rows.line_num, rule, f"{len(row)}: {row}")
                labels.append(row.pop(at))
                lines.append(rows.line_num)
                for cell, column in zip(row, columns, strict=True):
                    values.append(_number(path, rows.line_num, column, cell, limit))
        except csv_module.Error as error:
            _fail(path, rows.line_num, "CSV", error)
    if not labels:
        _fail(path, rows.line_num, "followed by at least one row", "the end")
    image = np.array(values).reshape(len(labels), len(columns))
    if classes is False:
        pairs = zip(lines, labels, strict=True)
        y = np.array([_number(path, line, target, cell, limit) for line, cell in pairs])
        return Table(ArrayDataset(image, y[:, None]), columns, None)
    labels = [cell.strip() for cell in labels]
    names = _sorted(labels) if classes is True else list(names)
    number_of = {name: i for i, name in enumerate(names)}
    for line, cell in zip(lines, labels, strict=True):
        if not cell or cell not in number_of:
            known = "a class" if classes is True else f"one of the classes {names}"
            _fail(path, line, f"{known} in column {target!r}", cell)
    y = np.array([number_of[cell] for cell in labels])
    return Table(ArrayDataset(image, y, classes=len(names)), columns, names)


def _utf8(path, file):
    """Yields the lines of a file whose bytes that are no UTF-8 are escaped, and refuses those."""
    for number, line in enumerate(file, 1):
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = line[error.start].encode(errors="surrogateescape")
            _fail(path, number, "UTF-8", byte)
        yield line


def _position(label, columns):
    """Returns which column has the labels."""
    if isinstance(label, str):
        _check.choice("csv", "label", label, columns)
        return columns.index(label)
    position, n = _check.whole(label), len(columns)
    if position is None or not -n <= position < n:
        _check.fail("csv", "label", f"a name or a position in [{-n}, {n})", label)
    return position % n


def _number(path, line, column, cell, limit):
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in cell:  # Python takes 1_000 for 1000
        fix = "pandas.read_csv reads text and missing cells"
        _fail(path, line, f"a finite number in column {column!r}", cell, fix)
    if abs(number) >= limit:
        _fail(path, line, f"a number that float32 can hold in column {column!r}", cell)
    return number


def _sorted(labels):
    """Returns the distinct labels, sorted as numbers if all are whole ones."""
    try:
        return sorted(set(labels), key=lambda label: (int(label), label))
    except ValueError:
        return sorted(set(labels))


def _fail(path, line, rule, value, fix="") -> NoReturn:
    line = max(line, 1)  # 0 where the file is empty
    _check.fail("csv", f"{path}, line {line}", rule, value, fix, DataError)
