"""Prompts for the scorers that ask a language model, in our own words; the words are data, the rule is in scorers.py.

A board's own prompt is another file: give it with `--scorer-prompt`. A prompt's hash is part of the scorer's name.
"""

PROMPTS = {
    "voicebench-qa": """Here is a question, its reference answers and what an assistant replied.

Question: {question}
Reference answers: {answers}
Reply: {response}

Does the reply give a correct answer, judged by the question and the references? Answer with the one word Yes or No.
""",
    "voicebench-open": """A voice assistant was asked something; below is a transcript of both sides.

Question: {question}
Reply: {response}

Rate the reply from 1 to 5: 1 wrong or off the point, 2 partly relevant, 3 mostly right but wordy or thin, 4 right and
clear, 5 exactly what was wanted and no more. Answer with the number alone.
""",
    "openaudiobench": """Judge whether a reply is correct, given the accepted answers. Wording may differ, numbers may
be words or digits, and small spelling slips do not matter; the core meaning does.

Question: {question}
Accepted answers: {answers}
Reply: {response}

Give a short reason and end with [Correct] or [Incorrect].
""",
}
