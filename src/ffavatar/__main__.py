"""``python -m ffavatar`` is the ``ffavatar`` command."""

from ffavatar.cli import main

if __name__ == "__main__":
    main()
