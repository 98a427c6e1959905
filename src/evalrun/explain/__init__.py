"""Why this answer: which parts of a prompt, which words, and whether that explanation is faithful.

`main.explain` is the door. What it gives are the documents of `evalrun.explanations`.
"""
