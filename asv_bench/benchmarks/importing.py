def timeraw_import():
    return "import spcy"
