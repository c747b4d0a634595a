"""The engines. A backend turns packed token ids into rows of numbers and knows nothing of text."""
