"""Results to plotly figures: the only plotly code, shared by the reports and the dashboard."""
