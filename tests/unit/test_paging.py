"""Page sizes and tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import ServiceError
from server.paging import Page, next_token, page_of, token_of


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1_000, 1_000), (10**6, 1_000)])
def test_sizes_are_held_within_limits(asked, size):
    assert page_of("ListItems", asked, "") == Page(0, size)


def test_a_negative_size_is_refused():
    with pytest.raises(ServiceError) as caught:
        page_of("ListItems", -1, "")
    assert (caught.value.reason, caught.value.field) == ("FIELD_OUT_OF_RANGE", "page_size")


def test_pages_cover_a_list_once():
    token, positions = "", []
    while True:
        page = page_of("ListItems", 3, token)
        positions += range(page.start, min(page.start + page.size, 8))
        if not (token := next_token("ListItems", page, 8)):
            break
    assert positions == list(range(8))


def test_the_token_of_another_method_is_refused():
    with pytest.raises(ServiceError) as caught:
        page_of("ListItems", 0, token_of("ListModels", 3))
    assert (caught.value.reason, caught.value.field) == ("PAGE_TOKEN_INVALID", "page_token")


@pytest.mark.parametrize("position", [2**32, 10**11, 10**40])
def test_a_position_that_no_list_reaches_is_refused(position):
    assert page_of("ListItems", 0, token_of("ListItems", 2**32 - 1)).start == 2**32 - 1
    with pytest.raises(ServiceError) as caught:
        page_of("ListItems", 0, token_of("ListItems", position))
    assert (caught.value.reason, caught.value.field) == ("PAGE_TOKEN_INVALID", "page_token")


@given(st.text(max_size=40))
def test_any_text_is_a_token_of_ours_or_refused(text):
    try:
        page = page_of("ListItems", 0, text)
    except ServiceError as error:
        assert error.reason == "PAGE_TOKEN_INVALID"  # noqa: PT017
    else:
        assert page.start >= 0
