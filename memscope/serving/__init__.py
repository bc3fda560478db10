"""Key/value caches of serving: what they take, and request traces replayed under several ways to manage them."""
