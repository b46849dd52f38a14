"""What the user has said since the last turn: raw bytes of one format, and where on the session's clock they begin."""

from dataclasses import dataclass, field

from echox.generate.listening import Pace
from echox.serve.wire import bytes_of, ms_of, rate_of, samples_of


@dataclass
class SoundBuffer:
    """A session's clock counts the sound that came, not the time that passed."""

    form: str = "pcm16"
    start_ms: float = 0.0
    data: bytearray = field(default_factory=bytearray)
    pace: Pace = field(default_factory=Pace)  # at which it is listened to

    @property
    def end_ms(self) -> float:
        """Where the sound ends."""
        return self.start_ms + ms_of(len(self.data), self.form)

    def append(self, data: bytes) -> None:
        """Take more sound."""
        self.data += data
        self.pace.push(samples_of(data, self.form), rate_of(self.form))

    def is_due(self) -> bool:
        """Say whether it is worth listening again, and count it as listened to if so."""
        return self.pace.is_due((self.end_ms - self.start_ms) / 1000)

    def keep_last(self, ms: float) -> None:
        """Forget all but the last `ms`."""
        self.take(max(0, len(self.data) - bytes_of(ms, self.form)))

    def start_at(self, ms: float) -> None:
        """Forget what came before a place on the clock, as far as it is still held."""
        self.take(bytes_of(max(0.0, ms - self.start_ms), self.form))

    def until(self, ms: float) -> int:
        """Return how many bytes come before a place on the clock."""
        return min(len(self.data), bytes_of(max(0.0, ms - self.start_ms), self.form))

    def take(self, size: int | None = None) -> bytes:
        """Return and forget the first `size` bytes, or all."""
        taken = bytes(self.data[:size])
        del self.data[: len(taken)]
        self.start_ms += ms_of(len(taken), self.form)
        return taken

    def restart(self, form: str) -> None:
        """Forget everything and go on in another format."""
        self.take()
        self.form, self.pace = form, Pace()
