"""Formatting of computed results: text, JSON, HTML.

The command line takes a module for each kind of report. ``html_page`` and ``html_parts`` are what the HTML ones are
made of.
"""
