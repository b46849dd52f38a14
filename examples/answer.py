"""A recorded question to a spoken answer: python examples/answer.py question.wav"""

import sys

from echox import Assistant, EchoxError, SpeechAssistant


def answer(assistant: Assistant, recording: str, place: str = "answer.wav") -> str:
    """Ask a recording, save the spoken answer, and return what was answered."""
    reply = assistant.ask(recording, max_seconds=30)
    if reply.finish == "unheard":
        return "(nothing was understood)"
    reply.save(place)
    return reply.text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(answer(SpeechAssistant.load("mini"), sys.argv[1]))
    except EchoxError as error:
        sys.exit(str(error))
