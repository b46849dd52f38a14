"""Ids of spoken replies that carry what was said, signed: no process need remember them, and any that shares the secret reads them.

audio_ + base64url( mac[16] + expires[4] + deflated transcript )
"""

import base64
import binascii
import hashlib
import hmac
import time
import zlib

from echox.serve.refusals import Refusal

MAC, STAMP, LONGEST = 16, 4, 16_000  # bytes, bytes, characters


def reply_id(text: str, secret: str, expires: int) -> str:
    """Return the id of a reply whose transcript is `text`, good until `expires` (seconds of the epoch)."""
    body = expires.to_bytes(STAMP, "big") + zlib.compress(text.encode())
    return "audio_" + base64.urlsafe_b64encode(_mac(secret, body) + body).decode()


def reply_text(name: str, secret: str, now: float | None = None) -> str:
    """Return the transcript of a reply; Refusal (audio_not_found) when the id is not ours or its time is over."""
    message = f"the spoken reply {name[:40]!r} is unknown or expired: send its text."
    gone = Refusal(400, message, "audio_not_found", "messages")
    try:
        data = base64.b64decode(name.removeprefix("audio_"), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise gone from None
    mac, body = data[:MAC], data[MAC:]
    ours = hmac.compare_digest(mac, _mac(secret, body))
    if not ours or int.from_bytes(body[:STAMP], "big") < (time.time() if now is None else now):
        raise gone
    return zlib.decompressobj().decompress(body[STAMP:], LONGEST).decode(errors="replace")


def _mac(secret: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), body, hashlib.sha256).digest()[:MAC]
