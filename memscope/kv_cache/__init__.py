"""What a recorded key/value cache holds and wastes: its tokens, unused tails, and the copies that it grows by."""
