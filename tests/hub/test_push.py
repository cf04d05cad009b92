"""`geli push`: what a folder is, what is sent and what is not, and what the Hub holds afterwards."""
