"""What was trained or published, put to use: :func:`family.load`, and a function for each task.

Each function takes a model that has with it what it needs, as :func:`family.from_pretrained` gives it
(``tokenizer``, ``preprocess``, ``labels``), and gives plain values.
"""
