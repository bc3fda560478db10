"""Results to plotly figures: the only plotly code, shared by the reports and the dashboard.

Other folders import:

``address_map``     The address space at a moment: segments as rows, blocks in the colours of their categories
``device``          What a device says is used over a run, against what PyTorch knows of it, on one axis
``flame``           The flame graph: who holds the allocated bytes, from the outermost call or module down
``flame_data``      The tree of calls or of modules at a moment as the boxes of a flame graph, no byte lost,
                    and what they are called
``fragmentation``   Fragmentation over events: what is in use and free, and below it the largest request that
                    would succeed
``frame``           What all pictures share: fonts, margins, hover labels, and axes in binary units
``kv_cache``        A recorded key/value cache over events: what its bytes hold, and below it the tokens; and
                    its layers at a moment
``ledger``          The ledger as lines of a table and as one stacked bar
``ranks``           Ranks side by side: a bar of each one's peak, and a table of colours, rank by step
``replay``          Replays side by side: what each setting would have reserved for the same requests
``replay_curves``   Reserved memory over the run: the recording, and over it what each replay would have held
``scrubber``        The whole run in a strip: what the dashboard's scrubber shows under its handle
``serving``         Managers of key/value memory side by side: the shares of their memory, and what a block's
                    size changes
``serving_curves``  A serving replay over time, reduced to what a picture can show, and its picture
``theme``           Colours: one palette for the app, the reports and the README, in a light and a dark cut
``timeline``        Memory over events or time: a stack of categories under the lines of allocated, reserved
                    and capacity
``timeline_data``   A device's usage over events, reduced to what a picture can show
"""
