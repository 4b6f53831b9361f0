"""What is wrong with a field, said below it in such a way that whoever hears the page is told it at the field."""

import json
from collections.abc import Mapping

from nicegui import ui
from nicegui.element import Element

from artesian.server.ui.markup import tag


class Mark:
    """Whether what a field has is wrong, and why. It stands where it is made: right behind its field.

    ``id_`` is the message's on the page; ``how_id`` that of an element that says what is expected there, if any.
    """

    def __init__(self, field: Element, id_: str, *, how_id: str | None = None) -> None:
        self._field, self._id, self._how_id = field, id_, how_id
        self._box = ui.html("", sanitize=False)
        if how_id is not None:
            field.props["aria-describedby"] = how_id

    def wrong(self, why: str) -> None:
        """Say what is wrong, and take the reader there."""
        self._box.set_content(tag("p", why, id=self._id, class_="wrong", role="alert"))
        described = self._id if self._how_id is None else f"{self._id} {self._how_id}"
        self._tell(is_wrong=True, attributes={"aria-invalid": "true", "aria-describedby": described})
        self._field.run_method("focus")

    def clear(self) -> None:
        """Say that nothing is wrong, as far as is known."""
        if self._box.content:
            self._box.set_content("")
            self._tell(is_wrong=False, attributes={"aria-invalid": None, "aria-describedby": self._how_id})

    def _tell(self, *, is_wrong: bool, attributes: Mapping[str, str | None]) -> None:
        """Give the attributes to what has the focus of the field, None: none; Quasar's own fields turn red."""
        self._field.props["error"] = is_wrong or None
        if not isinstance(self._field, ui.select):
            self._field.props.update(attributes)
        self._field.update()
        if isinstance(self._field, ui.select):  # QSelect passes no attributes on
            self._field.client.run_javascript(
                f"for (const [name, value] of Object.entries({json.dumps(attributes)})) {{"
                f'  const box = getElement({self._field.id}).$el.querySelector("[role=combobox]");'
                "  value === null ? box.removeAttribute(name) : box.setAttribute(name, value);"
                "}"
            )
