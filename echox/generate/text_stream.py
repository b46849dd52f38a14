"""Token ids to text as they come; characters that span tokens appear once they are whole."""

from typing import Any


class TextStream:
    """Decodes a growing run of tokens; the pieces together equal decoding the whole run."""

    def __init__(self, tokenizer: Any, spells_specials: bool = False) -> None:
        self.tokenizer, self.skips = tokenizer, not spells_specials
        self.ids: list[int] = []
        self.shown = 0  # characters already returned

    def push(self, token: int) -> str:
        """Return the text that became certain with `token`, perhaps none."""
        self.ids.append(token)
        text = self._decode()
        return "" if text.endswith("\ufffd") else self._new(text)

    def flush(self) -> str:
        """Return what is left, broken characters included."""
        return self._new(self._decode())

    def _decode(self) -> str:
        return self.tokenizer.decode(self.ids, skip_special_tokens=self.skips, clean_up_tokenization_spaces=False)

    def _new(self, text: str) -> str:
        piece, self.shown = text[self.shown :], max(self.shown, len(text))
        return piece
