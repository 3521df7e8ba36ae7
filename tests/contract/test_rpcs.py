"""Every RPC of the contract is served."""

import importlib
import pkgutil

import pytest

import shopkeeper.v1
from server.rpc import python_name, rpcs_of
from server.services.catalog import CatalogService
from server.services.events import EventService
from server.services.models import ModelService
from server.services.placements import PlacementService
from server.services.profiles import ProfileService
from server.services.recommendations import RecommendationService

SERVED = [EventService, CatalogService, ProfileService, PlacementService, RecommendationService, ModelService]


def services_of_the_contract():
    modules = [module.name for module in pkgutil.iter_modules(shopkeeper.v1.__path__) if module.name.endswith("_pb2")]
    for name in modules:
        yield from importlib.import_module(f"shopkeeper.v1.{name}").DESCRIPTOR.services_by_name.values()


def test_every_service_of_the_contract_is_served():
    assert {service.descriptor for service in SERVED} == set(services_of_the_contract())


@pytest.mark.parametrize("service", SERVED, ids=lambda service: service.__name__)
def test_every_rpc_has_a_documented_method(service):
    for method in service.descriptor.methods:
        assert getattr(service, python_name(method.name)).__doc__, method.full_name
    assert service.raw_methods <= set(service.descriptor.methods_by_name)


def test_a_service_without_a_method_is_refused():
    class Empty:
        descriptor = CatalogService.descriptor
        raw_methods = frozenset()

    with pytest.raises(AttributeError, match="upsert_items"):
        rpcs_of(Empty())
