"""Translates the beta realtime protocol (header `OpenAI-Beta: realtime=v1`) to the current one and back; nothing else knows it."""

from typing import Any

from echox.serve.refusals import Refusal

Event = dict[str, Any]

RENAMED = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
PARTS = {"output_audio": "audio", "output_text": "text"}
NEWER_PARTS = {old: new for new, old in PARTS.items()}
FORMATS = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
OLD_FORMATS = {old: new for new, old in FORMATS.items()}
INPUT = {  # field of the older session: field of audio.input
    "turn_detection": "turn_detection",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
}
SAME = ("instructions", "tools", "tool_choice", "metadata", "conversation")


def inbound(event: Event) -> Event:
    """Return a beta client's event in the current protocol."""
    event = dict(event)
    if isinstance(session := event.get("session"), dict):
        event["session"] = _newer(session)
    if isinstance(response := event.get("response"), dict):
        event["response"] = _newer(response)
        if "input" in response:
            given = response["input"]
            event["response"]["input"] = [_newer_item(item) for item in given] if isinstance(given, list) else given
    if isinstance(item := event.get("item"), dict):
        event["item"] = _newer_item(item)
    return event


def outbound(event: Event) -> list[Event]:
    """Return an event in the beta protocol, which has no `conversation.item.done`."""
    if event["type"] == "conversation.item.done":
        return []
    event = event | {"type": RENAMED.get(event["type"], event["type"])}
    if isinstance(item := event.get("item"), dict):
        event["item"] = _renamed(item, PARTS)
    if "session" in event:
        event["session"] = _older_session(event["session"])
    if "response" in event:
        event["response"] = _older_response(event["response"])
    return [event]


def _newer(old: Event) -> Event:
    new: Event = {name: old[name] for name in SAME if name in old}
    sides: dict[str, Event] = {"input": {}, "output": {}}
    for side in sides:
        if name := old.get(f"{side}_audio_format"):
            if not isinstance(name, str) or name not in OLD_FORMATS:
                message = f"{side}_audio_format is none of {', '.join(OLD_FORMATS)}."
                raise Refusal(400, message, "invalid_value", f"session.{side}_audio_format")
            sides[side]["format"] = {"type": OLD_FORMATS[name]}
    for theirs, ours in INPUT.items():
        if theirs in old:
            sides["input"][ours] = old[theirs]
    for name in ("voice", "speed"):
        if name in old:
            sides["output"][name] = old[name]
    if any(sides.values()):
        new["audio"] = {side: values for side, values in sides.items() if values}
    if "modalities" in old:
        spoken = isinstance(old["modalities"], list) and "audio" in old["modalities"]
        new["output_modalities"] = ["audio"] if spoken else ["text"]
    for name in ("max_response_output_tokens", "max_output_tokens"):
        if name in old:
            new["max_output_tokens"] = old[name]
    return new


def _newer_item(item: Any) -> Any:
    said = isinstance(item, dict) and isinstance(item.get("content"), list) and item.get("role") == "assistant"
    return _renamed(item, NEWER_PARTS) if said else item


def _renamed(item: Event, names: dict[str, str]) -> Event:
    """Return an item with the types of its parts renamed."""
    parts = [
        part | {"type": names[part["type"]]} if isinstance(part, dict) and str(part.get("type")) in names else part
        for part in item.get("content", [])
    ]
    return item | {"content": parts}


def _older_session(new: Event) -> Event:
    sound, heard = new["audio"]["output"], new["audio"]["input"]
    return {
        "id": new["id"],
        "object": new["object"],
        "model": new["model"],
        "expires_at": new["expires_at"],
        "modalities": _modalities(new["output_modalities"]),
        "instructions": new["instructions"],
        "voice": sound["voice"],
        "speed": float(sound["speed"]),
        "input_audio_format": FORMATS[heard["format"]["type"]],
        "output_audio_format": FORMATS[sound["format"]["type"]],
        "input_audio_transcription": heard["transcription"],
        "input_audio_noise_reduction": heard["noise_reduction"],
        "turn_detection": heard["turn_detection"],
        "tools": new["tools"],
        "tool_choice": new["tool_choice"],
        "max_response_output_tokens": new["max_output_tokens"],
    }


def _older_response(new: Event) -> Event:
    sound = new["audio"]["output"]
    kept = {name: value for name, value in new.items() if name not in ("audio", "output_modalities")}
    return kept | {
        "modalities": _modalities(new["output_modalities"]),
        "output": [_renamed(item, PARTS) for item in new["output"]],
        "output_audio_format": FORMATS[sound["format"]["type"]],
        "voice": sound["voice"],
    }


def _modalities(names: list[str]) -> list[str]:
    return ["text", "audio"] if "audio" in names else ["text"]
