"""Results to plotly figures: the only plotly code, shared by the reports and the dashboard.

Other folders import:

``address_map``     The address space at a moment: segments as rows, blocks in the colours of their
                    categories
``compare``         The waterfall of a difference: from what one moment holds to what another does, a bar a
                    category or a holder
``device``          What a device says is used over a run, against what PyTorch knows of it, on one axis
``fragmentation``   Fragmentation over events: what is in use and free, and below it the largest request
                    that would succeed
``kv_cache``        A recorded key/value cache over events: what its bytes hold, and below it the tokens;
                    and its layers at a moment
``ledger``          The ledger as lines of a table and as one stacked bar
``ranks``           Ranks side by side: a bar of each one's peak, and a table of colours, rank by step
``replay``          Replays: what each setting would have reserved for the same requests, side by side and
                    over the run
``serving``         Managers of key/value memory side by side: the shares of their memory, and what a
                    block's size changes
``serving_curves``  A serving replay over time, reduced to what a picture can show, and its picture
``theme``           What all pictures share: one palette in a light and a dark cut, fonts, margins, hover
                    labels, axes
``timeline``        Memory over events or time: a stack of categories under the lines of allocated,
                    reserved and capacity
``timeline_data``   A device's usage over events, reduced to what a picture can show; the whole run in a
                    strip
``whatif``          What techniques make of a run: its memory before and after, over each other
"""
