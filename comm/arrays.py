"""numpy arrays as the parts that travel: dtype, shape, order and memory. numpy only when used."""

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

_MEMORY = "?bBhHiIlLqQefdFD"  # types whose memory the buffer protocol can tell
_known: dict[str, Any] = {}  # dtypes by their names, once checked
# Not among them: long doubles, which differ from machine to machine and have bytes that are
# nobody's; dates without a unit, or of none of one, which numpy makes but cannot print.
_UNIT = r"\[(?:[1-9]\d{0,8})?[A-Za-z]{1,2}\]"
_DIGITS = re.compile(r"\d+", re.ASCII)
_SCALAR = re.compile(
    rf"[<>|](?:[biu][1248]|f[248]|c8|c16|[SUV]\d{{1,9}}|M8{_UNIT}|m8(?:{_UNIT})?)", re.ASCII
)


def is_array(value: object) -> bool:
    """Whether `value` is an array whose memory says everything; a masked array's does not."""
    numpy = sys.modules.get("numpy")  # an import statement takes several times as long
    kind = type(value)
    # Neither is there before numpy is, nor while another thread imports it.
    return kind is getattr(numpy, "ndarray", None) or kind is getattr(numpy, "memmap", None)


def is_number(value: object) -> bool:
    """Whether `value` is a numpy scalar with an equal Python number, bool or text."""
    import numpy

    return isinstance(value, (numpy.number, numpy.bool_, numpy.str_, numpy.bytes_)) and not (
        isinstance(value, (numpy.longdouble, numpy.clongdouble, numpy.complexfloating))
    )


def array_to_parts(array: numpy.ndarray[Any, Any]) -> tuple[Any, list[int], str, memoryview]:
    """`array` as (dtype, shape, order, bytes); copied only if its memory has gaps.

    Raises `EncodeError` for a dtype that holds Python objects, and `ValueError` for an array that
    its receiver would refuse.
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
    flat = numpy.ascontiguousarray(array.T if order == "F" else array)
    # Through uint8: the buffer protocol knows no datetime64.
    view = flat.reshape(-1).view("u1").data if flat.nbytes else memoryview(b"")
    described = _plain(numpy.lib.format.dtype_to_descr(dtype))
    if not isinstance(described, str) or described not in _known:
        _dtype(described)
    return described, list(array.shape), order, view


def array_from_parts(dtype: Any, shape: Any, order: Any, data: Frame) -> Any:
    """The array in `data`, without a copy. Raises `ValueError` for parts that do not fit.

    All of its bytes are those of `data`: what numpy makes of a description is compared with what
    came.
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
    if described.kind in "UV":
        _check_text(array)
    return array


def _check_text(array: Any) -> None:
    """Raise `ValueError` if a text in `array` has characters that are none: none could be read."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check_text(array[name])
    elif array.dtype.kind == "U" and array.nbytes:
        import numpy

        characters = numpy.ascontiguousarray(array).view(f"{array.dtype.str[0]}u4")
        if characters.max() > sys.maxunicode:
            raise ValueError(f"an array of text with a character {characters.max():#x}")


def _dtype(description: Any) -> Any:
    """The dtype of a description that `dtype_to_descr` gives for it, and of no other.

    So numpy parses no text of a peer's making, and what it makes can be printed and sent back.
    """
    import numpy

    form, size = _Description().checked(description)
    made = numpy.lib.format.descr_to_dtype(form)
    if made.itemsize != size or _plain(numpy.lib.format.dtype_to_descr(made)) != description:
        raise ValueError(f"{brief(description)} is not how numpy describes a dtype")
    if isinstance(description, str) and len(_known) < 256:  # a peer chooses the names
        _known[description] = made
    return made


def _plain(description: Any) -> Any:
    """A description as it travels, with lists in place of tuples."""
    if isinstance(description, (list, tuple)):
        return [_plain(part) for part in description]
    return description


class _Description:
    """Looks through a description of a dtype before numpy does; counts its fields."""

    def __init__(self) -> None:
        self._fields = 0

    def checked(self, description: Any, level: int = 0) -> tuple[Any, int]:
        """`description` as numpy takes it, and the bytes of an item.

        Raises `ValueError` for what numpy cannot have given, and for more bytes than it can count:
        the sum would be negative there.
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
            # A copy of such an array, and with it `tobytes`, has in them what was in memory before.
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
    """A field's name, or its title and name."""
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
