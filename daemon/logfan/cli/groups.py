"""A command that has commands of its own."""

import shlex

import click


class Group(click.Group):
    """Where an option stands before the command that has it, the fault names its place."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = [*args]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            at = next((at for at, word in enumerate(given) if word in self.commands), None)
            if at is None:
                raise
            _, command, _ = self.resolve_command(ctx, given[at:])
            has = [name for one in command.params for name in one.opts] if command else []
            if error.option_name not in has:
                raise
            words = shlex.join([given[at], *given[:at], *given[at + 1 :]])
            raise click.UsageError(
                f"{error.option_name} goes behind the command: {ctx.command_path} {words}", ctx
            ) from None
