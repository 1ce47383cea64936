"""The judge: what a label and an image must be, the same for every layout."""

import re

from plsc.artifacts.records import LABEL_LIMIT_BYTES, BadRowError, Reason, parse_label
from plsc.conf.choices import ColumnOrder
from plsc.transforms import NotAnImageError, decode, image_dimensions

__all__ = ["Judge"]

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_JPEG_BEGINNING = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"


class Judge:
    """Tells what is wrong with a row, and what a layout needs to know of the settings."""

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int = 0,
        is_named: bool = False,
        decodes: bool = False,
        column_order: ColumnOrder = ColumnOrder.auto,
        image_column: str = "image",
        label_column: str = "label",
    ) -> None:
        """Take what rows must be.

        Args:
            image_size: Height and width that every image must have, in pixels.
            num_classes: Integer labels must be below; 0: any label will do.
            is_named: Whether labels are names; else they are integers.
            decodes: Whether every image is decoded completely; else a JPEG is only if its header
                and its end leave doubt.
            column_order: Which column of base64 records holds the image.
            image_column: The column of tables that does.
            label_column: Their column of labels.
        """
        self.is_named = is_named
        self.column_order = column_order
        self.image_column = image_column
        self.label_column = label_column
        self._image_size = image_size
        self._num_classes = num_classes
        self._decodes = decodes

    def label(self, text: bytes) -> int | bytes:
        """Return the class, or the name in UTF-8, that ``text`` spells; blanks around it go.

        Raises:
            BadRowError: If it is no integer or out of range; of names, if it is empty, longer than
                ``LABEL_LIMIT_BYTES``, not UTF-8, or holds control characters.
        """
        if not self.is_named:
            return parse_label(text, num_classes=self._num_classes)
        name = text.strip()
        if not name:
            raise BadRowError(Reason.EMPTY_NAME, "the label is empty: expected a name")
        if len(name) > LABEL_LIMIT_BYTES:
            raise BadRowError(
                Reason.LONG_NAME,
                f"the label's {len(name)} bytes are more than the {LABEL_LIMIT_BYTES} allowed",
            )
        try:
            control = _CONTROL.search(name.decode())
        except UnicodeDecodeError as error:
            raise BadRowError(Reason.NOT_UTF8, f"the label is not UTF-8: {error}") from error
        if control:
            raise BadRowError(
                Reason.CONTROL, f"the label holds the control character {control.group()!r}"
            )
        return name

    def integer(self, label: int) -> int | bytes:
        """Return what ``label`` asks for rows whose labels are stored as integers.

        Raises:
            BadRowError: If the label is out of range.
        """
        return self.label(b"%d" % label)

    def image(self, content: bytes) -> None:
        """Check that ``content`` is a whole image of the right size.

        By default a JPEG is whole when its header has the right size and its last marker stands at
        its end (1 us): one that was cut off lacks it, and is decoded (60 us at 112 x 112) to see.
        The other formats have no such end and are always decoded.

        Raises:
            BadRowError: If it is none.
        """
        if not content.startswith(_BEGINNINGS):
            raise BadRowError(
                Reason.NOT_AN_IMAGE, f"{len(content)} bytes that are no known image format"
            )
        size = self._image_size
        try:
            height, width = image_dimensions(content)
            if height != size or width != size:
                raise BadRowError(
                    Reason.DIMENSIONS, f"expected {size} x {size} pixels, found {width} x {height}"
                )
            if (
                self._decodes
                or not content.endswith(_JPEG_END)
                or not content.startswith(_JPEG_BEGINNING)
            ):
                decode(content)
        except NotAnImageError as error:
            raise BadRowError(Reason.DAMAGED_IMAGE, str(error)) from error
