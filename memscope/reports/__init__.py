"""Formatting of computed results: text, JSON, HTML; newer verbs have a folder each.

Other folders import:

``fragmentation``  Fragmentation as text and as JSON: of a moment, over time, and what pins it
``html``           The report as one HTML file that needs nothing else: no network, no fonts, no scripts from
                   elsewhere
``html_page``      The page of the HTML report, its style and script, and its parts. Every text from a trace is escaped
                   here
``json``           The JSON contract: what ``--json`` prints, verb by verb. Bytes are integers, what was not
                   measured is null
``kv_cache``       What a recorded key/value cache holds and wastes, as text and as JSON
``oom``            The verdict on an out-of-memory error, as text and as JSON
``ranks``          Ranks side by side as text for a terminal, at most 120 columns wide
``ranks_html``     Ranks side by side as one HTML file that needs nothing else
``replay``         Reports of verification and of replays, as JSON and as text
``serving``        Reports of serving replays, as JSON and as text
``serving_html``   A serving replay's report as one HTML file that needs nothing else
``terminal``       What fits a terminal's width: tables that leave out columns rather than cut a number, and lines that
                   hang
``text``           Reports as text for a terminal. They receive computed results and only format them
"""
