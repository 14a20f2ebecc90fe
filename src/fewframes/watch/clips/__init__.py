"""The clips room: a folder with a clip, a picture and a file of each event, and a page that lists them."""
