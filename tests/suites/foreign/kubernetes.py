"""Kubernetes' own judgement of objects, and Helm's of the chart.

helm CHART NAMESPACE VALUES   renders the chart by Helm's own engine; prints the objects as JSON
helm-refuses CHART VALUES     why Helm refuses these values by the chart's schema
lint CHART                    what Helm's lint says
validate VERSION...           objects as JSON on standard input: what the schemas of these versions say of them
"""

import json
import sys

import yaml


def helm(chart, namespace, values):
    import helm_python

    with helm_python.Chart.load(chart) as loaded:
        rendered = loaded.render(json.loads(values), name="outrider", namespace=namespace)
    objects = [each for text in rendered.values() for each in yaml.safe_load_all(text)]
    print(json.dumps([each for each in objects if each is not None]))


def helm_refuses(chart, values):
    import helm_python

    with helm_python.Chart.load(chart) as loaded:
        try:
            loaded.validate_schema(json.loads(values))
        except Exception as error:  # its words are what is wanted
            print(error)


def lint(chart):
    import helm_python

    print(json.dumps(helm_python.lint(chart)))


def validate(*versions):
    import kubernetes_validate

    for each in json.load(sys.stdin):
        name = f"{each['kind']} {each['metadata'].get('name')}"
        for version in versions:
            try:
                kubernetes_validate.validate(each, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                print(f"{version}: {name}: {'.'.join(map(str, error.path))}: {error.message}")


{"helm": helm, "helm-refuses": helm_refuses, "lint": lint, "validate": validate}[sys.argv[1]](*sys.argv[2:])
