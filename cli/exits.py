"""Exit codes, and errors as one sentence on stderr."""

from collections.abc import Callable

from ..unclip_core.output import say


def run_and_report(call: Callable[[], object]) -> int:
    """Run `call` and return the exit code; an error that a user can mend is printed as a sentence.

    Args:
        call: does the work. If it returns a number, that is the exit code; False means that it has reported a
            failure itself (exit code 1); anything else is success.

    Returns:
        0 on success, 1 after an error, 130 after an interrupt (Ctrl-C).
    """
    try:
        result = call()
    except KeyboardInterrupt:
        say("unclip: interrupted.", to_stderr=True)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        say(f"unclip: {error}", to_stderr=True)
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for its name
            raise
        say(
            f"unclip: the device has too little memory ({str(error).splitlines()[0]}): compute less at once.",
            to_stderr=True,
        )
        return 1
    return result if type(result) is int else int(result is False)
