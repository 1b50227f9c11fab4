"""The members of the family; each file reads top to bottom as the paper's figure."""
