"""The command clep-dg deploy."""

import argparse

from clepdg_flows.cli.parser import Commands, add_command
from clepdg_tasks.admin.alerts import check_block
from clepdg_tasks.host.processes import set_environment
from clepdg_tasks.host.settings import load_settings


def add_deploy_commands(commands: Commands) -> None:
    """Add the command."""
    what = "deploy what is missing or changed in prefect.yaml"
    deploy = add_command(commands, "deploy", deploy_command, what, "clep-dg deploy")
    deploy.add_argument("--force", action="store_true", help="deploy what did not change too")
    deploy.add_argument(
        "--alerts", metavar="BLOCK", help="also send alerts by this notification block, for example slack-webhook/team"
    )


def deploy_command(options: argparse.Namespace) -> None:
    """Deploy prefect.yaml to the user's server, and print what was written."""
    if options.alerts:
        check_block(options.alerts)
    settings = load_settings()
    set_environment(settings)
    from clepdg_tasks.admin.prefect_deployments import deploy_to, prefect_of_user

    url, secret, ours = prefect_of_user(settings)
    for line in deploy_to(url, secret, ours=ours, force=options.force, alerts_by=options.alerts):
        print(line)
