"""numpy arrays and their wire form: dtype, shape, order and data. Never imports numpy."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

from .errors import EncodeError
from .wire.budget import DIMENSIONS, Budget, brief

if TYPE_CHECKING:
    import numpy

    from .wire.framing import Frame

__all__ = ["array_from_parts", "array_to_parts", "is_array", "is_number"]

_MEMORY = "?bBhHiIlLqQefdFD"  # type codes that the buffer protocol can describe
_known: dict[str, Any] = {}  # dtypes by their names, once checked
# Excluded are long doubles, whose size and padding depend on the platform, and dates without a unit
# or with an empty one, which numpy can create but not print.
_UNIT = r"\[(?:[1-9]\d{0,8})?[A-Za-z]{1,2}\]"
_DIGITS = re.compile(r"\d+", re.ASCII)
_SCALAR = re.compile(
    rf"[<>|](?:[biu][1248]|f[248]|c8|c16|[SUV]\d{{1,9}}|M8{_UNIT}|m8(?:{_UNIT})?)", re.ASCII
)


def is_array(value: object) -> bool:
    """Whether `value` is an array fully described by dtype, shape and data; no masked array."""
    numpy = sys.modules.get("numpy")  # an import statement takes several times as long
    kind = type(value)
    # Neither attribute exists while another thread is importing numpy.
    return kind is getattr(numpy, "ndarray", None) or kind is getattr(numpy, "memmap", None)


def is_number(value: object) -> bool:
    """Whether `value` is a numpy scalar that equals a Python number, bool or str."""
    import numpy

    return isinstance(value, (numpy.number, numpy.bool_, numpy.str_, numpy.bytes_)) and not (
        isinstance(value, (numpy.longdouble, numpy.complexfloating, numpy.timedelta64))
    )


def array_to_parts(array: numpy.ndarray[Any, Any]) -> tuple[Any, list[int], str, memoryview]:
    """`array` as (dtype, shape, order, data); copied only if it is not contiguous.

    Raises `EncodeError` for a dtype that holds Python objects, and `ValueError` for an array that
    the receiver would reject.
    """
    dtype = array.dtype
    if dtype.hasobject:
        raise EncodeError(
            f"cannot encode a numpy array of dtype {dtype}: it holds Python objects; "
            f"convert it to a fixed-size dtype"
        )
    simple = dtype.char in _MEMORY and dtype.isnative and array.ndim <= DIMENSIONS
    if simple and array.size and array.flags.c_contiguous:
        return dtype.str, list(array.shape), "C", array.data.cast("B")
    Budget.check_shape(array.shape, dtype.itemsize)
    import numpy

    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    if dtype.kind in "MV":
        _check_values(array)
    flat = numpy.ascontiguousarray(array.T if order == "F" else array)
    # As uint8, since the buffer protocol does not support datetime64.
    view = flat.reshape(-1).view("u1").data if flat.nbytes else memoryview(b"")
    described = _plain(numpy.lib.format.dtype_to_descr(dtype))
    if not isinstance(described, str) or described not in _known:
        _dtype(described)
    return described, list(array.shape), order, view


def array_from_parts(dtype: Any, shape: Any, order: Any, data: Frame) -> Any:
    """Return the array in `data`, without a copy. Raises `ValueError` for inconsistent parts.

    The size that numpy derives from the description must equal the size of `data`, so no byte of
    the array is uninitialised.
    """
    import numpy

    described = (_known.get(dtype) if isinstance(dtype, str) else None) or _dtype(dtype)
    shape = _checked_shape(shape)
    if order not in ("C", "F"):
        raise ValueError(f"{brief(order)} is not an array's order")
    size = math.prod(shape) * described.itemsize
    if size != len(data):
        raise ValueError(f"an array of {size} bytes came with {len(data)} bytes of data")
    if not size:
        Budget.check_shape(shape, described.itemsize)
    array = numpy.ndarray(shape, described, data if size else bytearray(), 0, None, order)
    if array.nbytes != len(data) or array.dtype != described:
        raise ValueError(f"numpy makes {array.nbytes} bytes of an array that came with {len(data)}")
    if described.kind in "MUV":
        _check_values(array)
    return array


def _check_values(array: Any) -> None:
    """Raise `ValueError` for texts and dates in `array` that numpy could hold and not print."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check_values(array[name])
    elif array.dtype.kind == "M" and array.nbytes:
        _check_dates(array)
    elif array.dtype.kind == "U" and array.nbytes:
        import numpy

        characters = numpy.ascontiguousarray(array).view(f"{array.dtype.str[0]}u4")
        if characters.max() > sys.maxunicode:
            raise ValueError(f"an array of text with a character {characters.max():#x}")


def _check_dates(array: Any) -> None:
    """Raise `ValueError` for a date whose count of plain units is beyond 64 bits.

    Printing one raises `OverflowError` from numpy 2.5 on. Only units with a multiple, such as 25 s,
    can have them.
    """
    import numpy

    unit, multiple = numpy.datetime_data(array.dtype)
    if multiple == 1:
        return
    most = (2**63 - 1) // multiple
    counts = array.view(f"{array.dtype.str[0]}i8")
    beyond = ((counts > most) | (counts < -most)) & ~numpy.isnat(array)
    if beyond.any():
        raise ValueError(
            f"a date of {counts[beyond].flat[0]} times {multiple} {unit}, beyond the 64 bits that "
            f"numpy counts {unit} in"
        )


def _dtype(description: Any) -> Any:
    """Return the dtype of a description; only the form that `dtype_to_descr` produces is accepted.

    Hence numpy never parses a text of the peer's making, and the dtype can be printed and sent
    back.
    """
    import numpy

    form, size = _Description().checked(description)
    made = numpy.lib.format.descr_to_dtype(form)
    if made.itemsize != size or _plain(numpy.lib.format.dtype_to_descr(made)) != description:
        raise ValueError(f"{brief(description)} is not how numpy describes a dtype")
    if isinstance(description, str) and len(_known) < 256:  # bounded: the peer chooses the names
        _known[description] = made
    return made


def _plain(description: Any) -> Any:
    """Return the wire form of a description, with lists for tuples."""
    if isinstance(description, (list, tuple)):
        return [_plain(part) for part in description]
    return description


class _Description:
    """Validates a dtype description before numpy sees it, and counts its fields."""

    def __init__(self) -> None:
        self._fields = 0

    def checked(self, description: Any, level: int = 0) -> tuple[Any, int]:
        """Return `description` as numpy takes it, and the item size in bytes.

        Raises `ValueError` for anything numpy cannot have produced, and for an item size beyond
        numpy's limit, where its own sum would turn negative.
        """
        Budget.check_fields(self._fields, level)
        if isinstance(description, str) and _SCALAR.fullmatch(description):
            size = int(_DIGITS.match(description, 2)[0]) * (4 if description[1] == "U" else 1)  # type: ignore[index]
            Budget.check_item(size)
            return description, size
        if not isinstance(description, list):
            raise ValueError(f"{brief(description)} is no dtype that can be sent")
        self._fields += len(description)
        Budget.check_fields(self._fields, level)
        fields = [self._field(field, level) for field in description]
        size = sum(size for _, size in fields)
        Budget.check_item(size)
        return [form for form, _ in fields], size

    def _field(self, field: Any, level: int) -> tuple[tuple[Any, ...], int]:
        if not isinstance(field, list) or len(field) not in (2, 3) or not _is_name(field[0]):
            raise ValueError(f"{brief(field)} is not a field of a dtype")
        if field[0] == "":
            # Copies of such an array, and `tobytes`, would expose uninitialised memory.
            raise ValueError(
                "a dtype with gaps between its fields; "
                "numpy.lib.recfunctions.repack_fields makes one without"
            )
        name = field[0] if isinstance(field[0], str) else tuple(field[0])
        inner, size = self.checked(field[1], level + 1)
        if len(field) == 2:
            return (name, inner), size
        shape = _checked_shape(field[2])
        Budget.check_shape(shape, itemsize=1)
        return (name, inner, shape), size * math.prod(shape)


def _is_name(name: Any) -> bool:
    """Whether `name` is a field's name, or its title and name."""
    if isinstance(name, list):
        return len(name) == 2 and all(isinstance(part, str) for part in name)
    return isinstance(name, str)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, list) and len(shape) <= DIMENSIONS:
        for length in shape:
            if type(length) is not int or length < 0:
                break
        else:
            return tuple(shape)
    raise ValueError(f"{brief(shape)} is not a shape")
