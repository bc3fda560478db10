"""Parts of the page that several views share, and the frame around the views."""
