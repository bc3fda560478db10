"""The data model: the columnar trace, its builder, its checks, its file and the readers of foreign formats."""
