"""A static plan made with all lifetimes known in advance, and the proof that it is sound."""
