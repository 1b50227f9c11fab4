"""What the family is compared with, by the contracts of its members."""
