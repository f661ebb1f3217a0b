# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The released model's one-turn template as a chat template for any number of turns."""

import json
import re


MARKER = "<audio>"


def chat_template_from_released(template: str) -> str:
    """Turn the released template, one string with the marker ``<audio>``, into a Jinja chat template.

    The string reads: system turn, end-of-turn mark, opening of the user's turn, ``<audio>``, end-of-turn mark, opening
    of the assistant's turn. The result renders the same text for one spoken user turn; without a system turn it uses
    the released system text. Further turns follow in the same form: an answer is closed by the end-of-turn mark before
    the next turn opens.

    Args:
        template: ``model_conf.chat_template`` of the released ``train.yaml``.

    Returns:
        A Jinja template for ``apply_chat_template``. Message contents are strings.

    Raises:
        ValueError: the string does not have this form.
    """
    if template.count(MARKER) != 1:
        raise ValueError(f"The template holds {MARKER} {template.count(MARKER)} times; it must hold it once.")
    left, right = template.split(MARKER)
    end = re.match(r"<[^<>\s]+>|\[[^\[\]\s]+\]", right)
    if end is None or left.count(end.group()) != 1:
        raise ValueError(
            f"The text after {MARKER}, {right!r}, must start with the end-of-turn mark that also closes the system "
            f"turn in {left!r}."
        )
    end = end.group()
    system, user_opening = left.split(end)
    system_opening, newline, system_text = system.partition("\n")
    system_opening += newline
    assistant_opening = right[len(end) :]
    system_opening, system_text, user_opening, assistant_opening, end = (
        json.dumps(piece, ensure_ascii=False)
        for piece in (system_opening, system_text, user_opening, assistant_opening, end)
    )
    return (
        "{%- if messages and messages[0]['role'] == 'system' -%}"
        f"{{{{- {system_opening} + messages[0]['content'] + {end} -}}}}"
        "{%- set turns = messages[1:] -%}"
        "{%- else -%}"
        f"{{{{- {system_opening} + {system_text} + {end} -}}}}"
        "{%- set turns = messages -%}"
        "{%- endif -%}"
        "{%- for message in turns -%}"
        "{%- if message['role'] == 'user' -%}"
        f"{{{{- {user_opening} + message['content'] + {end} -}}}}"
        "{%- elif message['role'] == 'assistant' -%}"
        f"{{{{- {assistant_opening} -}}}}"
        f"{{%- generation -%}}{{{{- message['content'] + {end} -}}}}{{%- endgeneration -%}}"
        "{%- else -%}"
        "{{- raise_exception(\"Roles are 'user' and 'assistant' after an optional first 'system'; got '\""
        " + message['role'] + \"'.\") -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {assistant_opening} -}}}}{{%- endif -%}}"
    )


__all__ = ["chat_template_from_released"]
