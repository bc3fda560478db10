"""The interactive dashboard: a Dash app over memscope's analyses."""
