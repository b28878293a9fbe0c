r"""The Vicuna prompt of Bunny and LLaVA-1.5, as a chat template.

``SYSTEM USER: <image>\nQUESTION ASSISTANT: ANSWER</s>USER: QUESTION ASSISTANT:``, with one space
after a user's turn and nothing after the end token of an assistant's.
"""

import json

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
"""The system text of both projects."""

IMAGE_TOKEN = "<image>"

_TEMPLATE = """\
{%- macro words(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- for part in content -%}
      {%- if part.type == "text" -%}
        {{- part.text -}}
      {%- elif part.type != "image" -%}
        {{- raise_exception("parts of a message must be of type text or image") -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- macro images(content) -%}
  {%- if content is not string -%}
    {%- for part in content if part.type == "image" -%}
      {{- IMAGE -}}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if messages[0].role != "system" -%}
  {{- SYSTEM -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role != "user" and images(message.content) -%}
    {{- raise_exception("images must be in a user's message") -}}
  {%- endif -%}
  {%- if message.role == "system" and loop.first -%}
    {%- if words(message.content) -%}
      {{- words(message.content) ~ " " -}}
    {%- endif -%}
  {%- elif message.role == "user" -%}
    {{- "USER: " ~ images(message.content) ~ words(message.content) ~ " " -}}
  {%- elif message.role == "assistant" -%}
    {%- if loop.last and not add_generation_prompt -%}
      {{- "ASSISTANT:" ~ (answer_space | default(" ")) ~ words(message.content) ~ END -}}
    {%- else -%}
      {{- "ASSISTANT: " ~ words(message.content) ~ END -}}
    {%- endif -%}
  {%- else -%}
    {{- raise_exception("roles must be user and assistant, after at most one system message") -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- "ASSISTANT:" -}}
{%- endif -%}
"""


def vicuna_template(end: str) -> str:
    """Write the chat template of a model.

    Without a system message the system text of both projects is written; a given one replaces it,
    and an empty one leaves it out. The variable ``answer_space`` is what stands between
    ``ASSISTANT:`` and the last answer: a space, or what the caller passes.

    Args:
        end: Token that ends an answer.

    Returns:
        The template, in Jinja.
    """
    written = {"IMAGE": f"{IMAGE_TOKEN}\n", "SYSTEM": f"{SYSTEM} ", "END": end}
    lines = [f"{{%- set {name} = {json.dumps(text)} -%}}\n" for name, text in written.items()]
    return "".join(lines) + _TEMPLATE
